"""Our own checks for schemathesis, loaded by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

import re
from email import message_from_bytes
from typing import Any

import schemathesis

CROSS_FIELD = {
    # Limits of the model: context, vocabulary, tokenizer.
    "prompt": "more tokens than the context; ids outside the vocabulary",
    "inputs": "more tokens than the context",
    "input": "more tokens than the context; ids outside the vocabulary; pairs of a text and ids",
    "messages": "more tokens than the context; what the template can't show",
    "tokens": "ids outside the vocabulary",
    "stop_token_ids": "ids outside the vocabulary",
    "allowed_token_ids": "ids outside the vocabulary; all of them banned",
    "logit_bias": "ids outside the vocabulary",
    "bad_words": "texts without tokens; all of them together too long",
    "max_tokens": "with the prompt, over the context",
    "max_completion_tokens": "with the prompt, over the context",
    "max_new_tokens": "with the prompt, over the context",
    "truncate": "over the context",
    "truncate_prompt_tokens": "over the context",
    # Limits of the caller.
    "priority": "below its key's min_priority",
    # Constraints between fields.
    "stop_sequences": "another value than stop",
    "return_full_text": "another value than echo",
    "do_sample": "true, with temperature 0",
    "min_tokens": "above max_tokens",
    "stream_options": "only with stream",
    "best_of": "below n; streamed; seeded",
    "logprobs": "times prompts, completions and tokens, more than one answer may have",
    "prompt_logprobs": "streamed; times tokens, more than one answer may have",
    "stop": "all of them together too long",
    "decoder_input_details": "streamed",
    "top_logprobs": "only with logprobs",
    "use_beam_search": "what beams don't combine with",
    "length_penalty": "only with use_beam_search",
    "early_stopping": "only with use_beam_search",
    "add_generation_prompt": "not with continue_final_message",
    "chat_template_kwargs": "what the model's template does not read",
    # Ollama's.
    "keep_alive": "0, which would unload the model; texts that are no duration",
    "system": "with raw",
    "context": "with raw; ids outside the vocabulary",
    "format": "a schema that can't be compiled",
    "name": "another value than model",
    "n": "another value than n_cmpl",
    "json_schema": "a schema that can't be compiled",
    "continue_final_message": "not with add_generation_prompt",
    # Languages that JSON Schema can't describe.
    "response_format": "a schema that can't be compiled; two grammars at once",
    "guided_json": "a schema that can't be compiled; two grammars at once",
    "guided_regex": "no regular expression; two grammars at once",
    "guided_choice": "two grammars at once",
    "guided_grammar": "no grammar; two grammars at once",
    "structured_outputs": "what can't be compiled; two grammars at once",
    "grammar": "what can't be compiled",
}
"""Parameters that a 400 or 422 may name for a body that the document allows, and for what no JSON Schema can say."""
CROSS_FIELD_MESSAGES = (
    "no token is left to sample",
    "maximum context length",
    "cannot be used with ",
    "delete some first",
)
"""Said if several parameters are at fault together, whichever is named; or if a store is full, and none is."""


def texts_in(value: object) -> list[str]:
    """All strings of a JSON value, without the names of fields."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in texts_in(one)]
    return [value] if isinstance(value, str) else []


@schemathesis.check
def only_cross_field_rules_refuse_what_the_document_allows(
    _context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Bodies that the document allows are refused only for the named rules."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code not in (400, 422):
        return
    body = response.json()
    error = body.get("error")
    if isinstance(error, dict) and "param" in error:
        is_known = re.split(r"\W", error["param"] or "")[0] in CROSS_FIELD
    else:  # A shape without a field for the parameter: its message begins with the name.
        is_known = any(
            not CROSS_FIELD.keys().isdisjoint(re.split(r"[^\w.]", text)[0].split(".")) for text in texts_in(body)
        )
    message = response.text
    if not is_known and not any(said in message for said in CROSS_FIELD_MESSAGES):
        raise AssertionError(f"the document allows what is refused: {body}")


@schemathesis.check
def uploads_of_other_forms_are_refused(
    _context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Takes the place of negative_data_rejection, which believes the generator: this one looks at what was sent."""
    is_negative = case.meta is not None and not case.meta.generation.mode.is_positive
    if case.operation.label != "POST /v1/files" or not is_negative or response.status_code >= 400:
        return
    body = response.request.body
    assert isinstance(body, bytes), body
    fields = form_fields(str(response.request.headers["Content-Type"]), body)
    if not {"file", "purpose"} <= fields <= {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"}:
        raise AssertionError(f"a form with the fields {sorted(fields)} is accepted")


def form_fields(content_type: str, body: bytes) -> set[str]:
    """Names of the fields of a multipart form."""
    parts = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body).get_payload()
    return {str(part.get_param("name", header="Content-Disposition")) for part in parts if not isinstance(part, str)}
