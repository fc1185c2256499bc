"""Parameter values without effect, for every protocol: clients send them because they are the clients' defaults.

From the sources of clients and of the servers that they are made for: openai 3.54, huggingface_hub 2.4,
@huggingface/inference 4.13, text-generation 0.7 (TGI's own client), litellm 1.110, LangChain's openai 1.7 and
huggingface 1.2, LlamaIndex's openai 0.8, guidellm 0.8, vLLM (commit 002032e) and llama.cpp (commit 00dc805).
"""

from __future__ import annotations

EITHER = (True, False)
"""Both values have the same effect here: none."""

ANY_TEXT = (str,)

NO_OP_VALUES: dict[str, tuple[object, ...]] = {
    # OpenAI's
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include_obfuscation": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": EITHER,
    "prediction": (),
    "prompt_cache_key": ANY_TEXT,
    "prompt_cache_options": ({},),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
    # vLLM's
    "add_special_tokens": (True,),
    "cache_salt": (),
    "chat_template": (),
    "documents": ([],),
    "early_stopping": (False,),
    "ec_transfer_params": ({},),
    "guided_decoding_backend": ("auto", "guidance", "llguidance"),
    "guided_whitespace_pattern": (),
    "include_reasoning": EITHER,
    "kv_transfer_params": ({},),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "prompt_embeds": ([],),
    "prompt_logprobs": (),
    "repetition_detection": (),
    "request_id": (),
    "return_mm_kwargs": (True,),
    "return_prompt_text": (False,),
    "return_token_ids": (False,),
    "return_token_offsets": (False,),
    "return_tokens_as_token_ids": (False,),
    "routed_experts_prompt_start": (0,),
    "session_id": (),
    "spaces_between_special_tokens": EITHER,
    "stream_interval": (1,),
    "thinking_token_budget": (-1,),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermarking": (False,),
    # TGI's
    "adapter_id": (),
    "decoder_input_details": (False,),
    "details": EITHER,
    "return_full_text": (False,),
    "stop_sequences": ([],),
    "guideline": (),
    "tool_prompt": (),
    "top_n_tokens": (0,),
    "watermark": (False,),
    # llama.cpp's
    "cache_prompt": EITHER,
    "dry_allowed_length": (2,),
    "dry_base": (1.75,),
    "dry_multiplier": (0,),
    "dry_penalty_last_n": (-1,),
    "dry_sequence_breakers": (["\n", ":", '"', "*"],),
    "dynatemp_exponent": (1,),
    "dynatemp_range": (0,),
    "grammar": ("",),
    "id_slot": (-1,),
    "json_schema": (),
    "lora": ([],),
    "min_keep": (0,),
    "mirostat": (0,),
    "mirostat_eta": (0.1,),
    "mirostat_tau": (5,),
    "n_cache_reuse": (0,),
    "n_cmpl": (1,),
    "n_indent": (0,),
    "n_keep": (0,),
    "n_predict": (),
    "n_probs": (0,),
    "post_sampling_probs": (False,),
    "repeat_last_n": (),
    "repeat_penalty": (1,),
    "response_fields": ([],),
    "return_progress": (False,),
    "return_tokens": (False,),
    "samplers": (),
    "sse_ping_interval": (),
    "t_max_predict_ms": (0,),
    "timings_per_token": (False,),
    "xtc_probability": (0,),
    "xtc_threshold": (0.1,),
}
"""Values, besides null, without an effect, for parameters that a route does not have. Others are refused by name.

`add_special_tokens`: a score's texts always get them. `spaces_between_special_tokens`: a byte-level tokenizer adds no
spaces. `cache_prompt` and `prompt_cache_key`: the prefix cache needs neither. `guided_decoding_backend`: llguidance is
the backend. `details`: the answer has its finish reason either way. `parallel_tool_calls` and `include_reasoning`: the
model has neither tools nor reasoning. llama.cpp's numbers are the defaults of samplers that are off.
"""

NULL_VALUES: dict[str, tuple[object, ...]] = {"logit_bias": ([],), "logprobs": (False,)}
"""Values that mean the same as null, of a type that the schema does not allow, for parameters that a route has."""


def is_among(value: object, values: tuple[object, ...]) -> bool:
    """Whether one of `values` equals `value` in JSON, where `1` is not `true`. A type stands for all its values."""
    return any(isinstance(value, other) if isinstance(other, type) else _is_same(value, other) for other in values)


def _is_same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)
