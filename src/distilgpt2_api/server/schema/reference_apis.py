"""The parameters of other servers' APIs, spelled as in their own specifications and sources.

`cli/api_reference` derives from our schemas which of them are supported here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceApi:
    name: str
    source: str
    """The source of the names."""
    parameters: tuple[str, ...]


def _names(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text))


OPENAI_COMPLETION = ReferenceApi(
    name="OpenAI",
    source="`CreateCompletionRequest`, as in openai-python 3.54",
    parameters=_names("""
        model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream
        stream_options suffix temperature top_p user
    """),
)

OPENAI_CHAT = ReferenceApi(
    name="OpenAI",
    source="`CreateChatCompletionRequest`, as in openai-python 3.54",
    parameters=_names("""
        messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
        max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
        prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier
        stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
        web_search_options
    """),
)

VLLM_SOURCE = "`vllm/entrypoints/openai`, commit 002032e; `guided_*` and `best_of` from releases before 0.12"
VLLM_SHARED = _names("""
    frequency_penalty logit_bias logprobs max_tokens model n presence_penalty seed stop stream stream_options
    temperature top_p user use_beam_search top_k min_p repetition_penalty watermarking length_penalty stop_token_ids
    include_stop_str_in_output ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens
    truncate_prompt_tokens truncation_side allowed_token_ids prompt_logprobs logprob_token_ids bad_words echo
    add_special_tokens response_format structured_outputs priority request_id session_id return_tokens_as_token_ids
    return_token_ids routed_experts_prompt_start return_token_offsets return_mm_kwargs cache_salt kv_transfer_params
    ec_transfer_params vllm_xargs repetition_detection thinking_token_budget stream_interval best_of guided_json
    guided_regex guided_choice guided_grammar guided_decoding_backend guided_whitespace_pattern logits_processors
""")

VLLM_COMPLETION = ReferenceApi(
    name="vLLM", source=VLLM_SOURCE, parameters=(*VLLM_SHARED, *_names("prompt suffix prompt_embeds"))
)

VLLM_CHAT = ReferenceApi(
    name="vLLM",
    source=VLLM_SOURCE,
    parameters=(
        *VLLM_SHARED,
        *_names("""
            messages max_completion_tokens top_logprobs tools tool_choice parallel_tool_calls reasoning_effort
            include_reasoning add_generation_prompt continue_final_message documents chat_template chat_template_kwargs
            media_io_kwargs mm_processor_kwargs return_prompt_text
        """),
    ),
)

TGI = ReferenceApi(
    name="TGI",
    source="`GenerateParameters` of TGI 3, as in huggingface_hub 2.4",
    parameters=_names("""
        adapter_id best_of decoder_input_details details do_sample frequency_penalty grammar max_new_tokens
        repetition_penalty return_full_text seed stop temperature top_k top_n_tokens top_p truncate typical_p watermark
    """),
)

LLAMA_CPP = ReferenceApi(
    name="llama.cpp",
    source="`POST /completion` in `tools/server/README.md`, commit 00dc805",
    parameters=_names("""
        prompt temperature dynatemp_range dynatemp_exponent top_k top_p min_p n_predict n_indent n_keep n_cmpl
        n_cache_reuse stream stop typical_p repeat_penalty repeat_last_n presence_penalty frequency_penalty
        dry_multiplier dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers xtc_probability
        xtc_threshold mirostat mirostat_tau mirostat_eta grammar json_schema seed ignore_eos logit_bias n_probs min_keep
        t_max_predict_ms id_slot cache_prompt return_tokens samplers timings_per_token return_progress
        sse_ping_interval post_sampling_probs response_fields lora
    """),
)

REFERENCE_APIS = (OPENAI_COMPLETION, OPENAI_CHAT, VLLM_COMPLETION, VLLM_CHAT, TGI, LLAMA_CPP)
REFERENCE_PARAMETERS = frozenset(name for api in REFERENCE_APIS for name in api.parameters)
"""Every route accepts null for these names: null requests nothing."""
