"""The store's tables. Raise VERSION with each change."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from distilgpt2_api.batch.store.objects import STAMPED_STATUSES

VERSION = 1
"""A store of another version is neither read nor written."""

METADATA = MetaData()

STORE_VERSION = Table("distilgpt2_store_version", METADATA, Column("version", Integer, primary_key=True))

FILES = Table(
    "distilgpt2_files",
    METADATA,
    Column("file_id", String(64), primary_key=True),
    Column("caller", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("num_chunks", Integer, nullable=False),
    Column("created_s", Double, nullable=False),
    Column("expires_s", Double),
    Column("is_complete", Boolean, nullable=False),
    Index("distilgpt2_files_of_caller", "caller", "created_s", "file_id"),
)

CHUNKS = Table(
    "distilgpt2_file_chunks",
    METADATA,
    Column("file_id", String(64), ForeignKey(FILES.c.file_id, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
"""The files' contents, in pieces. They are in SQL, so that a process that reaches the database has all data."""

BATCHES = Table(
    "distilgpt2_batches",
    METADATA,
    Column("batch_id", String(64), primary_key=True),
    Column("caller", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", String(64), nullable=False),
    Column("output_file_id", String(64)),
    Column("error_file_id", String(64)),
    Column("status", String(16), nullable=False),
    Column("ending", String(16), nullable=False),
    Column("created_s", Double, nullable=False),
    Column("expires_s", Double, nullable=False),
    *(Column(f"{status}_s", Double) for status in STAMPED_STATUSES),
    Column("metadata", Text),
    Column("model", Text, nullable=False),
    Column("output_expiry_s", Double),
    Column("errors", Text, nullable=False),
    Column("num_lines", Integer, nullable=False, default=0),
    Column("num_completed", Integer, nullable=False, default=0),
    Column("num_failed", Integer, nullable=False, default=0),
    Column("num_prompt_tokens", BigInteger, nullable=False, default=0),
    Column("num_cached_tokens", BigInteger, nullable=False, default=0),
    Column("num_completion_tokens", BigInteger, nullable=False, default=0),
    Column("owner", String(64)),
    Column("lease_expires_s", Double),
    Index("distilgpt2_batches_of_caller", "caller", "created_s", "batch_id"),
    Index("distilgpt2_batches_by_status", "status", "created_s"),
)
"""`owner`: the id of the batch's lease, which expires at `lease_expires_s` unless it is renewed. Each claim creates a
new id. An ended batch keeps its last one."""

RESULTS = Table(
    "distilgpt2_batch_results",
    METADATA,
    Column("batch_id", String(64), ForeignKey(BATCHES.c.batch_id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("is_success", Boolean, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
"""Results of the lines of open batches. The primary key allows one result for each line."""
