"""Settings for the model and the engine."""

from typing import Annotated, Self

from pydantic import BaseModel, ByteSize, Field, PlainValidator, model_validator

from distilgpt2_api.core.config import MAX_DRAFT_TOKENS, Precision
from distilgpt2_api.settings.markers import AutoBytes, AutoInt
from distilgpt2_api.settings.text_lists import parse_texts

MAX_NAME_LENGTH = 200


def _parse_names(value: object) -> tuple[str, ...]:
    """Raises ValueError."""
    names = parse_texts(value, "names must be strings")
    for name in names:
        if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise ValueError(f"a name must have 1 to {MAX_NAME_LENGTH} printable characters: {name[:50]!r}")
    return tuple(dict.fromkeys(names))


class ServingSettings(BaseModel, defer_build=True):
    """Part of `Settings`, whose validator alone is built."""

    model: str | None = Field(
        default=None,
        min_length=1,
        description="Name of a pulled model, or a model folder. Unset: DistilGPT-2 if it has been pulled, else the "
        "bundled demo model `storyteller`.",
    )
    served_model_names: Annotated[tuple[str, ...], PlainValidator(_parse_names)] = Field(
        default=(),
        description="Names that clients may use for the model instead of its own, comma-separated. Responses contain "
        "the first one. Unset: the name of the pulled model or folder; clients may shorten it to its last part.",
    )
    precision: Precision = Field(
        default=Precision.INT8,
        description="Number format of the weights. `f32` is the reference; the others need less memory, and "
        "`int8` is the fastest.",
    )
    kernels: str = Field(
        default="",
        pattern=r"^[a-z0-9]*$",
        description="Instruction set of the kernels: `amx`, `avx512vnni`, `avxvnni`, `avx2` or `sse2` on x86-64, "
        "`i8mm`, `dotprod` or `neon` on arm64. Unset: the best that the processor has; others are for tests and "
        "measurements.",
    )
    root_path: str = Field(
        default="",
        pattern=r"^(/.*[^/])?$",
        description="Path prefix that a reverse proxy removes; the links in /docs need it.",
    )
    chat_template: str | None = Field(
        default=None,
        min_length=1,
        description="Jinja file that turns chat messages into a prompt, for /v1/chat/completions. Unset: the model's "
        "own template, if it has one. `off`: no template.",
    )
    num_workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Worker processes, each with its own engine, queue and KV cache. One worker makes the largest "
        "batches; use more only if a single batch can't keep all cores busy.",
    )
    num_threads: AutoInt = Field(
        default=None,
        ge=1,
        le=1024,
        description="Compute threads of each worker. `auto`: the cores that the cgroup quota and the CPU affinity "
        "allow, divided by the number of workers.",
    )
    kv_cache_bytes: AutoBytes = Field(
        default=None,
        ge=1 << 20,
        description="Memory of each worker's KV cache, with a unit if you like: `512MiB`. `auto`: 256MiB, or an eighth "
        "of the cgroup's memory limit if that is less, divided by the number of workers. The cache always has room "
        "for one sequence of full length, even if this is too small for it.",
    )
    max_num_sequences: int = Field(default=64, ge=1, le=1024, description="Maximum number of running sequences.")
    max_step_tokens: int = Field(
        default=256,
        ge=32,
        le=65536,
        description="Maximum number of tokens per step. A smaller value makes the time between tokens more even; a "
        "larger one makes prefill faster. While sequences decode, prompts get only part of it.",
    )
    max_draft_tokens: int = Field(
        default=MAX_DRAFT_TOKENS,
        ge=0,
        le=MAX_DRAFT_TOKENS,
        description="Maximum number of draft tokens per sequence and step for speculative decoding (n-gram lookup in "
        "the sequence's own text), which is used while few sequences run. It does not change the output. 0 "
        "disables it.",
    )
    prefix_caching: bool = Field(
        default=True, description="Keep KV blocks of finished prompts, so that a shared prefix is computed once."
    )
    prefix_cache_bytes: ByteSize = Field(
        default=ByteSize(32 << 20),
        ge=0,
        description="Size up to which the KV cache may grow only to keep finished prompts; beyond it the oldest are "
        "evicted first. Running sequences may use all of `kv_cache_bytes`.",
    )

    @model_validator(mode="after")
    def _check_step(self) -> Self:
        if self.max_step_tokens < self.max_num_sequences:
            message = f"max_step_tokens ({self.max_step_tokens}) is below max_num_sequences ({self.max_num_sequences})"
            raise ValueError(message)
        return self
