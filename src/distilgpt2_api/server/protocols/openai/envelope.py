"""What OpenAI's answers have around their choices."""

from __future__ import annotations

from pydantic import BaseModel

DONE = b"data: [DONE]\n\n"
"""Ends a stream that has not failed."""


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
