"""Parameter values without effect, for every protocol: clients send them because they are the clients' defaults.

From the sources of clients and of the servers that they are made for: openai 3.54, huggingface_hub 2.4,
@huggingface/inference 4.13, text-generation 0.7 (TGI's own client), litellm 1.110, LangChain's openai 1.7 and
huggingface 1.2, LlamaIndex's openai 0.8, guidellm 0.8, ollama 0.6, vLLM (commit 002032e), llama.cpp (commit 00dc805)
and Ollama (commit fb30760).
"""

EITHER = (True, False)
"""Both values have the same effect here: none."""

_VALUES: list[tuple[tuple[object, ...], str]] = [
    (
        (),
        """
        adapter_id audio cache_salt chat_template guided_whitespace_pattern guideline json_schema moderation
        n_predict prediction prompt_cache_retention prompt_logprobs repeat_last_n repetition_detection request_id
        safety_identifier samplers session_id sse_ping_interval tool_prompt truncate_prompt_tokens truncation_side
        web_search_options width height steps draft_num_predict num_batch
        """,
    ),
    (
        (False,),
        """
        _debug_render_only decoder_input_details early_stopping echo embedding_only include_obfuscation logits_all
        low_vram numa post_sampling_probs raw return_full_text
        return_progress return_prompt_text return_token_ids return_token_offsets return_tokens
        return_tokens_as_token_ids shift store think timings_per_token truncate use_beam_search use_mlock vocab_only
        watermark watermarking
        """,
    ),
    ((True,), "add_special_tokens penalize_newline return_mm_kwargs"),
    (
        EITHER,
        """
        backend_sampling cache_prompt details f16_kv include_reasoning parallel_tool_calls
        spaces_between_special_tokens use_mmap
        """,
    ),
    (
        (0,),
        """
        dry_multiplier dynatemp_range main_gpu n_discard min_keep mirostat n_cache_reuse n_indent n_keep n_probs
        num_thread routed_experts_prompt_start t_max_predict_ms top_logprobs top_n_tokens xtc_probability
        """,
    ),
    ((1,), "best_of dynatemp_exponent length_penalty n_cmpl repeat_penalty stream_interval tfs_z"),
    ((-1,), "adaptive_target top_n_sigma dry_penalty_last_n id_slot thinking_token_budget"),
    ((0, -1), "num_gpu"),
    ((0, 4), "num_keep"),
    ((0.9,), "adaptive_decay"),
    ((0.1,), "mirostat_eta xtc_threshold"),
    ((1.75,), "dry_base"),
    ((2,), "dry_allowed_length"),
    ((5,), "mirostat_tau"),
    (
        ([],),
        """
        context documents functions images logits_processors logprob_token_ids lora prompt_embeds response_fields
        stop_sequences tools
        """,
    ),
    ((["text"],), "modalities"),
    ((["\n", ":", '"', "*"],), "dry_sequence_breakers"),
    (
        ({},),
        """
        ec_transfer_params kv_transfer_params media_io_kwargs metadata mm_processor_kwargs options prompt_cache_options
        vllm_xargs
        """,
    ),
    (("",), "format grammar suffix system template"),
    (("none",), "reasoning_effort"),
    (("none", "auto"), "reasoning_format"),
    (("none", "auto"), "function_call tool_choice"),
    (("auto", "default"), "service_tier"),
    (("auto", "guidance", "llguidance"), "guided_decoding_backend"),
    (("medium",), "verbosity"),
    ((str,), "prompt_cache_key"),
]
NO_OP_VALUES = {name: values for values, names in _VALUES for name in names.split()}
"""Values, besides null, without an effect, for parameters that a route does not have. Others are refused by name.

`add_special_tokens`: a score's texts always get them. `spaces_between_special_tokens`: a byte-level tokenizer adds no
spaces. `cache_prompt` and `prompt_cache_key`: the prefix cache needs neither. `guided_decoding_backend`: llguidance is
the backend. `details`: the answer has its finish reason either way. `parallel_tool_calls` and `include_reasoning`: the
model has neither tools nor reasoning. `f16_kv` and `use_mmap`: how Ollama loads a model.
`backend_sampling`: where llama.cpp samples. The numbers of llama.cpp and
Ollama are the defaults of samplers that are off.
"""

NULL_VALUES: dict[str, tuple[object, ...]] = {"logit_bias": ([],), "logprobs": (False,)}
"""Values that mean the same as null, of a type that the schema does not allow, for parameters that a route has."""


def is_among(value: object, values: tuple[object, ...]) -> bool:
    """Whether one of `values` equals `value` in JSON, where `1` is not `true`. A type stands for all its values."""
    return any(isinstance(value, other) if isinstance(other, type) else _is_same(value, other) for other in values)


def _is_same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)
