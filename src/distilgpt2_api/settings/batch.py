"""Settings for the Files and Batch API, and for the store behind it."""

from typing import Annotated

from pydantic import BaseModel, ByteSize, Field

from distilgpt2_api.settings.markers import SECRET, AutoInt


class BatchSettings(BaseModel, defer_build=True):
    """Part of `Settings`, whose validator alone is built."""

    batch_store: Annotated[str | None, SECRET] = Field(
        default=None,
        min_length=1,
        description="Where files and batches are stored: a folder (SQLite), or a URL such as "
        "`postgresql+psycopg://USER:PASSWORD@HOST/NAME`. Needs the extra `batch` (`make install EXTRAS=batch`), for "
        "PostgreSQL also `postgres`. Unset: /v1/files and /v1/batches are disabled.",
    )
    batch_step_tokens: int = Field(
        default=2,
        ge=0,
        le=65536,
        description="Maximum number of tokens per step for batch work while other requests are in flight. Lower values "
        "slow those requests less; 0 pauses batch work until they have finished. Without other requests, batch work "
        "uses whole steps.",
    )
    max_batch_requests: AutoInt = Field(
        default=None,
        ge=1,
        le=65536,
        description="Maximum number of batch lines in flight. `auto`: the same as `max_num_sequences`.",
    )
    max_batch_lines: int = Field(
        default=50_000, ge=1, le=10_000_000, description="Maximum number of lines in one batch."
    )
    max_file_bytes: ByteSize = Field(
        default=ByteSize(200 << 20),
        ge=1024,
        le=1 << 40,
        description="Maximum size of an uploaded file; larger ones get 413.",
    )
    max_stored_files: int = Field(
        default=1000, ge=1, le=10_000_000, description="Maximum number of stored files per API key."
    )
    max_stored_bytes: ByteSize = Field(
        default=ByteSize(2 << 30),
        ge=1024,
        le=1 << 50,
        description="Maximum size of all files of one API key, including batch results. Beyond it uploads are refused; "
        "results are still written.",
    )
    max_open_batches: int = Field(
        default=100, ge=1, le=1_000_000, description="Maximum number of unfinished batches per API key."
    )
    file_expiry_s: float = Field(
        default=2_592_000.0,
        ge=60,
        le=315_360_000,
        description="Time until a file is deleted, unless its upload sets another time, and until a finished batch is "
        "deleted.",
    )
