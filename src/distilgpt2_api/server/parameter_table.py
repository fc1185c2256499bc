"""What becomes of each parameter that a client may send: read off our schemas, for docs/api.md."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distilgpt2_api.core.params import PARAMETERS
from distilgpt2_api.server.peers import LLAMA_CPP, OPENAI_CHAT, OPENAI_COMPLETION, TGI, VLLM_CHAT, VLLM_COMPLETION, Peer
from distilgpt2_api.server.schema_words import in_words
from distilgpt2_api.server.schemas.chat import ChatCompletionRequest
from distilgpt2_api.server.schemas.completions import CompletionRequest
from distilgpt2_api.server.schemas.no_ops import NO_OP_VALUES
from distilgpt2_api.server.schemas.score import ScoreRequest
from distilgpt2_api.server.schemas.tgi import TgiParameters
from distilgpt2_api.server.schemas.validation import Body, replacement_in

COMMON_DEFAULTS: dict[str, object] = {
    "model": "the one served",
    "n": 1,
    "seed": "drawn",
    "timeout_s": "the setting `timeout_s`",
    "priority": 0,
}
SAMPLING_DEFAULTS = (
    {"do_sample": True}
    | COMMON_DEFAULTS
    | {
        item.name: item.default
        for item in PARAMETERS
        if item.default not in (None, ()) and item.name not in COMMON_DEFAULTS
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterTable:
    path: str
    model: type[Body]
    peers: tuple[Peer, ...]
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Where `model`'s null stands for something that is not the engine's own default."""
    prefix: str = ""
    """What leads to the parameters in the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRow:
    name: str
    peers: tuple[str, ...]
    """Who has it; empty: only we do."""
    is_supported: bool
    values: str = ""
    """In words, of a supported one."""
    default: str = ""
    note: str = ""


COMPLETIONS = ParameterTable(
    path="/v1/completions",
    model=CompletionRequest,
    peers=(OPENAI_COMPLETION, VLLM_COMPLETION),
    defaults=SAMPLING_DEFAULTS
    | {
        "prompt": "the end of text token",
        "best_of": "`n`",
        "length_penalty": 1,
        "truncation_side": "`left`",
        "add_special_tokens": True,
    },
)
CHAT = ParameterTable(
    path="/v1/chat/completions",
    model=ChatCompletionRequest,
    peers=(OPENAI_CHAT, VLLM_CHAT),
    defaults=SAMPLING_DEFAULTS
    | {
        "max_completion_tokens": "what the context has room for",
        "max_tokens": "what the context has room for",
        "top_logprobs": 0,
        "add_generation_prompt": "`true`, but with `continue_final_message`",
    },
)
GENERATE = ParameterTable(
    path="/generate",
    model=TgiParameters,
    peers=(TGI,),
    defaults=COMMON_DEFAULTS
    | {
        "best_of": 1,
        "max_new_tokens": "1024, or what the context has room for",
        "repetition_penalty": 1,
        "temperature": 1,
    },
    prefix="parameters",
)
SCORE = ParameterTable(path="/v1/score", model=ScoreRequest, peers=(), defaults=COMMON_DEFAULTS)
LLAMA_CPP_COMPLETION = dataclasses.replace(COMPLETIONS, peers=(LLAMA_CPP,))
TABLES = (COMPLETIONS, CHAT, GENERATE, SCORE)


def rows_of(table: ParameterTable) -> Iterator[ParameterRow]:
    """Ours in the order of the schemas, the narrowest first; then what is refused, by name."""
    schema = table.model.model_json_schema()
    fields = [name for cls in table.model.__mro__ for name in inspect.get_annotations(cls)]
    supported = [name for name in fields if table.model.supports(name)]
    for name in supported:
        yield _supported_row(name, table, schema)
    theirs = {name for peer in table.peers for name in peer.parameters}
    for name in sorted(theirs.difference(supported)):
        yield _refused_row(name, table)


def llama_cpp_rows() -> Iterator[ParameterRow]:
    """Its own parameters only, at our completions."""
    table = LLAMA_CPP_COMPLETION
    schema = table.model.model_json_schema()
    for name in LLAMA_CPP.parameters:
        yield _supported_row(name, table, schema) if table.model.supports(name) else _refused_row(name, table)


def _refused_row(name: str, table: ParameterTable) -> ParameterRow:
    replacement = replacement_in(table.model, name)
    notes = [] if replacement is None else [f"here {replacement}"]
    if values := NO_OP_VALUES.get(name):
        notes.append("may be " + " or ".join(_value_in_words(value) for value in values))
    return ParameterRow(name=name, peers=_owners(name, table), is_supported=False, note="; ".join(notes))


def _value_in_words(value: object) -> str:
    return "any text" if value is str else f"`{json.dumps(value)}`"


def _supported_row(name: str, table: ParameterTable, schema: dict[str, Any]) -> ParameterRow:
    info = table.model.model_fields[name]
    default = table.defaults.get(name)
    if info.is_required():
        words = "required"
    elif name in table.model.other_names:
        words = f"`{table.model.other_names[name]}`'s"
    elif isinstance(default, str):
        words = default
    elif default is not None:
        words = f"`{default:g}`" if isinstance(default, float) else f"`{json.dumps(default)}`"
    else:
        words = "`false`" if _is_bool(schema["properties"][name]) else "none"
    return ParameterRow(
        name=name,
        peers=_owners(name, table),
        is_supported=True,
        values=in_words(schema["properties"][name], schema.get("$defs", {})),
        default=words,
        note=info.description or "",
    )


def _owners(name: str, table: ParameterTable) -> tuple[str, ...]:
    return tuple(peer.name for peer in table.peers if name in peer.parameters)


def _is_bool(schema: dict[str, Any]) -> bool:
    return any(branch.get("type") == "boolean" for branch in schema.get("anyOf", [schema]))
