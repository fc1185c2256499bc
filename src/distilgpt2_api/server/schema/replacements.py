"""Other programs' names of parameters, and the names to use here: for error texts and docs/api.md.

The names are those of OpenAI, vLLM, TGI, llama.cpp, Ollama, SGLang, Anthropic, `transformers`, KoboldCpp and
text-generation-webui. Each route's schema decides which of the replacements it has.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replacement:
    names: tuple[str, ...]
    """A route uses the first one that it has."""
    remark: str = ""


_NAMES: list[tuple[str, str, str]] = [
    # Lengths
    (
        """
        max_completion_tokens max_gen_len max_new_tokens max_output_tokens max_tokens max_tokens_to_sample n_predict
        num_predict
        """,
        "max_tokens max_new_tokens max_completion_tokens num_predict n_predict",
        "",
    ),
    (
        "max_length",
        "max_tokens max_new_tokens max_completion_tokens num_predict n_predict",
        "without the prompt's tokens",
    ),
    ("min_length", "min_tokens", "without the prompt's tokens"),
    ("min_new_tokens", "min_tokens", ""),
    ("t_max_predict_ms", "timeout_s", "in seconds, queue included"),
    ("timeout", "timeout_s", ""),
    ("truncate", "truncate_prompt_tokens", ""),
    ("truncate_prompt_tokens", "truncate", ""),
    ("truncation_length", "truncate_prompt_tokens truncate", ""),
    # Prompts
    ("content", "prompt", ""),
    ("input", "prompt inputs messages", ""),
    ("inputs", "prompt messages input", ""),
    ("messages", "prompt inputs", "or send a chat to /v1/chat/completions"),
    ("prompt", "messages inputs input", ""),
    ("text", "prompt inputs input", ""),
    ("token_ids", "tokens prompt", ""),
    # Sampling
    ("num_beams", "use_beam_search", "with `best_of` as the number of beams"),
    ("num_return_sequences n_cmpl", "n", ""),
    ("random_seed sampler_seed", "seed", ""),
    ("rep_pen", "repetition_penalty", ""),
    ("repeat_penalty", "repetition_penalty", "over prompt and completion"),
    ("repetition_penalty", "repeat_penalty", ""),
    ("typical", "typical_p", ""),
    # Ends
    ("ban_eos_token", "ignore_eos", ""),
    ("bad_words_ids", "bad_words", "as texts"),
    ("eos_token_id", "stop_token_ids", ""),
    ("stop_sequence stop_sequences stop_strings stopping_strings", "stop", ""),
    # Forms
    ("ebnf", "guided_grammar", ""),
    ("format", "guided_json response_format grammar", "a JSON schema"),
    ("grammar", "guided_grammar", "TGI's as `response_format`"),
    ("guided_grammar", "grammar", "in GBNF"),
    ("guided_json", "response_format json_schema format grammar", "a JSON schema"),
    ("guided_regex", "response_format grammar", 'with the type "regex"'),
    ("json_schema", "guided_json response_format grammar format", ""),
    ("regex", "guided_regex response_format grammar", ""),
    ("response_format", "response_format json_schema format grammar", ""),
    # Answers
    ("decoder_input_details", "prompt_logprobs", ""),
    ("echo", "return_full_text", ""),
    ("logprobs", "top_n_tokens token_logprobs n_probs", ""),
    ("n_probs top_logprobs top_n_tokens", "top_logprobs logprobs top_n_tokens n_probs", ""),
    ("prompt_logprobs", "decoder_input_details", ""),
    ("return_full_text", "echo", ""),
    ("template", "raw", "with a prompt in the template's form"),
    ("return_tokens", "return_token_ids", ""),
    ("return_token_ids", "return_tokens", ""),
    # Others
    ("engine", "model", ""),
]
"""Names elsewhere, names here, and a remark."""
REPLACEMENTS = {
    name: Replacement(tuple(ours.split()), remark) for names, ours, remark in _NAMES for name in names.split()
}
