"""Settings of what is served, where, and on what."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ByteSize, Field, PlainValidator, model_validator

from distilgpt2_api.core.config import MAX_DRAFT_TOKENS, Precision
from distilgpt2_api.settings.automatic import AutoBytes, AutoInt

MAX_NAME_LENGTH = 200


def _parse_names(value: object) -> tuple[str, ...]:
    """Comma-separated text, or TOML's list of texts. Raises ValueError."""
    if isinstance(value, str):
        value = [name for part in value.split(",") if (name := part.strip())]
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError("names are texts")
    for name in value:
        if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise ValueError(f"a name has 1 to {MAX_NAME_LENGTH} printable characters: {name[:50]!r}")
    return tuple(dict.fromkeys(value))


class ServingSettings(BaseModel):
    """Part of `Settings`."""

    model: str | None = Field(
        default=None,
        min_length=1,
        description="Name of a pulled model, or a folder. Unset: DistilGPT-2 if it has been pulled, else the bundled "
        "demo model `storyteller`.",
    )
    served_model_names: Annotated[tuple[str, ...], PlainValidator(_parse_names)] = Field(
        default=(),
        description="Names by which clients call the model, comma-separated, in place of its own. Answers have the "
        "first of them. Unset: the pulled model's name or the folder's, which may be shortened to its last part.",
    )
    precision: Precision = Field(
        default=Precision.INT8,
        description="Weights and arithmetic of the forward pass. `f32` is the reference, the others are faster.",
    )
    host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a container's service is reached from outside; `HOST` narrows it
        min_length=1,
        description="Address to listen on. `HOST` is honoured too.",
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one. `PORT` is honoured too."
    )
    root_path: str = Field(
        default="",
        pattern=r"^(/.*[^/])?$",
        description="Path prefix that a proxy in front strips, for the links in /docs.",
    )
    chat_template: str | None = Field(
        default=None,
        min_length=1,
        description="A Jinja file that makes a prompt of a chat's messages, for /v1/chat/completions. Unset: the "
        "model's own, if it has one. `off`: none.",
    )
    num_workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that serve, each with an engine, a queue and a KV cache of its own. One batches best: "
        "more are for machines whose cores a single batch can't fill.",
    )
    num_threads: AutoInt = Field(
        default=None,
        ge=1,
        le=1024,
        description="Compute threads of each worker. `auto`: the cores that the cgroup's quota and the CPU affinity "
        "leave, divided among the workers.",
    )
    kv_cache_bytes: AutoBytes = Field(
        default=None,
        ge=1 << 20,
        description="Memory of each worker's KV cache. `auto`: 256MiB, or an eighth of the cgroup's memory limit if "
        "that is less, divided among the workers. Units are understood: `512MiB`. One sequence of full length always "
        "fits, whatever this says.",
    )
    max_num_sequences: int = Field(default=64, ge=1, le=1024, description="Sequences that run at once; others wait.")
    max_step_tokens: int = Field(
        default=256,
        ge=32,
        le=65536,
        description="Tokens that one step computes at most. Smaller: smoother streams; larger: faster prefill. "
        "Beside running streams prompts have a part of it, so that gaps stay even.",
    )
    max_draft_tokens: int = Field(
        default=MAX_DRAFT_TOKENS,
        ge=0,
        le=MAX_DRAFT_TOKENS,
        description="Tokens guessed ahead for a sequence where its text repeats itself, and checked in one step, while "
        "few sequences run: the same answers (as with company in int8 and bf16), sooner. 0: off.",
    )
    prefix_caching: bool = Field(
        default=True, description="Keep full blocks of finished prompts, so that a shared beginning is computed once."
    )
    prefix_cache_bytes: ByteSize = Field(
        default=ByteSize(32 << 20),
        ge=0,
        description="Memory that the KV cache may grow to only to remember finished prompts; beyond it the oldest is "
        "forgotten first. Running sequences may use all of `kv_cache_bytes`.",
    )

    @model_validator(mode="after")
    def _check_step(self) -> Self:
        if self.max_step_tokens < self.max_num_sequences:
            message = f"max_step_tokens ({self.max_step_tokens}) is below max_num_sequences ({self.max_num_sequences})"
            raise ValueError(message)
        return self
