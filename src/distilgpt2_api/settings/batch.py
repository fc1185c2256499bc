"""Settings of work for which nobody waits."""

from __future__ import annotations

from pydantic import BaseModel, Field


class BatchSettings(BaseModel):
    """Part of `Settings`."""

    batch_step_tokens: int = Field(
        default=4,
        ge=0,
        le=65536,
        description="Tokens that one step computes for batch work while it computes others: fewer, and the others feel "
        "less of it; 0, and batch work rests meanwhile. While nobody else asks for anything it has whole steps.",
    )
