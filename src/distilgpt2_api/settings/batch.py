"""Settings of work for which nobody waits: files and batches, and the store that keeps them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ByteSize, Field

from distilgpt2_api.settings.automatic import AutoInt
from distilgpt2_api.settings.secret import SECRET


class BatchSettings(BaseModel):
    """Part of `Settings`."""

    batch_store: Annotated[str | None, SECRET] = Field(
        default=None,
        min_length=1,
        description="Where files and batches are kept: a folder, for SQLite, or a URL as "
        "`postgresql+psycopg://USER:PASSWORD@HOST/NAME`. Needs `pip install 'distilgpt2-api[batch]'`, for PostgreSQL "
        "`[batch,postgres]`. Unset: /v1/files and /v1/batches are switched off.",
    )
    batch_step_tokens: int = Field(
        default=2,
        ge=0,
        le=65536,
        description="Tokens that one step computes for batch work while it computes others: fewer, and the others feel "
        "less of it; 0, and batch work rests meanwhile. While nobody else asks for anything it has whole steps.",
    )
    max_batch_requests: AutoInt = Field(
        default=None,
        ge=1,
        le=65536,
        description="Lines of batches that are worked on at once. `auto`: as many as `max_num_sequences`.",
    )
    max_batch_lines: int = Field(default=50_000, ge=1, le=10_000_000, description="Lines of one batch.")
    max_file_bytes: ByteSize = Field(
        default=ByteSize(200 << 20), ge=1024, le=1 << 40, description="Size of an uploaded file; a larger one gets 413."
    )
    max_stored_files: int = Field(
        default=1000, ge=1, le=10_000_000, description="Files that one API key may have in the store."
    )
    max_stored_bytes: ByteSize = Field(
        default=ByteSize(2 << 30),
        ge=1024,
        le=1 << 50,
        description="Size of all files of one API key, what its batches have written included. Results are written all "
        "the same: it is uploads that are refused.",
    )
    max_open_batches: int = Field(
        default=100, ge=1, le=1_000_000, description="Batches of one API key that have not ended."
    )
    file_expiry_s: float = Field(
        default=2_592_000.0,
        ge=60,
        le=315_360_000,
        description="Time for which files are kept that say nothing else, and batches after their end.",
    )
