"""Other programs' names of parameters, and the names to use here: for error texts and docs/api.md.

The names are those of OpenAI, vLLM, TGI, llama.cpp, Ollama, SGLang, Anthropic, `transformers`, KoboldCpp and
text-generation-webui. Each route's schema decides which of the replacements it has.
"""

from __future__ import annotations

from dataclasses import dataclass

LENGTH = ("max_tokens", "max_new_tokens", "max_completion_tokens")
FORM = ("response_format", "grammar")
STOP = ("stop",)
ALTERNATIVES = ("top_logprobs", "logprobs", "top_n_tokens")


@dataclass(frozen=True, slots=True)
class Replacement:
    names: tuple[str, ...]
    """A route uses the first one that it has."""
    remark: str = ""


REPLACEMENTS: dict[str, Replacement] = {
    # Lengths
    "max_completion_tokens": Replacement(LENGTH),
    "max_gen_len": Replacement(LENGTH),
    "max_length": Replacement(LENGTH, "without the prompt's tokens"),
    "max_new_tokens": Replacement(LENGTH),
    "max_output_tokens": Replacement(LENGTH),
    "max_tokens": Replacement(LENGTH),
    "max_tokens_to_sample": Replacement(LENGTH),
    "min_length": Replacement(("min_tokens",), "without the prompt's tokens"),
    "min_new_tokens": Replacement(("min_tokens",)),
    "n_predict": Replacement(LENGTH),
    "num_predict": Replacement(LENGTH),
    "t_max_predict_ms": Replacement(("timeout_s",), "in seconds, queue included"),
    "timeout": Replacement(("timeout_s",)),
    "truncate": Replacement(("truncate_prompt_tokens",)),
    "truncate_prompt_tokens": Replacement(("truncate",)),
    "truncation_length": Replacement(("truncate_prompt_tokens", "truncate")),
    # Prompts
    "content": Replacement(("prompt",)),
    "input": Replacement(("prompt", "inputs", "messages")),
    "inputs": Replacement(("prompt", "messages", "input")),
    "messages": Replacement(("prompt", "inputs"), "or send a chat to /v1/chat/completions"),
    "prompt": Replacement(("messages", "inputs", "input")),
    "text": Replacement(("prompt", "inputs", "input")),
    "token_ids": Replacement(("tokens", "prompt")),
    # Sampling
    "num_beams": Replacement(("use_beam_search",), "with `best_of` as the number of beams"),
    "num_return_sequences": Replacement(("n",)),
    "n_cmpl": Replacement(("n",)),
    "random_seed": Replacement(("seed",)),
    "rep_pen": Replacement(("repetition_penalty",)),
    "repeat_penalty": Replacement(("repetition_penalty",), "over prompt and completion"),
    "sampler_seed": Replacement(("seed",)),
    "typical": Replacement(("typical_p",)),
    # Ends
    "ban_eos_token": Replacement(("ignore_eos",)),
    "bad_words_ids": Replacement(("bad_words",), "as texts"),
    "eos_token_id": Replacement(("stop_token_ids",)),
    "stop_sequence": Replacement(STOP),
    "stop_sequences": Replacement(STOP),
    "stop_strings": Replacement(STOP),
    "stopping_strings": Replacement(STOP),
    # Forms
    "ebnf": Replacement(("guided_grammar",), "in Lark's notation"),
    "format": Replacement(("guided_json", *FORM), "a JSON schema"),
    "grammar": Replacement(("guided_grammar",), "in Lark's notation; TGI's as `response_format`"),
    "guided_json": Replacement(FORM, 'with the type "json"'),
    "guided_regex": Replacement(FORM, 'with the type "regex"'),
    "json_schema": Replacement(("guided_json", *FORM)),
    "regex": Replacement(("guided_regex", *FORM)),
    "response_format": Replacement(FORM),
    # Answers
    "decoder_input_details": Replacement(("prompt_logprobs",)),
    "echo": Replacement(("return_full_text",)),
    "logprobs": Replacement(("top_n_tokens", "token_logprobs")),
    "n_probs": Replacement(ALTERNATIVES),
    "prompt_logprobs": Replacement(("decoder_input_details",)),
    "return_full_text": Replacement(("echo",)),
    "return_tokens": Replacement(("return_token_ids",)),
    "top_logprobs": Replacement(ALTERNATIVES),
    "top_n_tokens": Replacement(ALTERNATIVES),
    # Others
    "engine": Replacement(("model",)),
}
