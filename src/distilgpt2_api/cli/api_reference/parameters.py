"""The parameters that each route supports or refuses, read from its schema, for docs/api.md."""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distilgpt2_api.core.params import PARAMETERS
from distilgpt2_api.server.protocols.llama_cpp.schema import DEFAULTS as LLAMA_CPP_DEFAULTS
from distilgpt2_api.server.protocols.llama_cpp.schema import LlamaCompletionRequest
from distilgpt2_api.server.protocols.ollama.schema import DEFAULTS as OLLAMA_DEFAULTS
from distilgpt2_api.server.protocols.ollama.schema import OllamaGenerateRequest, OllamaOptions
from distilgpt2_api.server.protocols.openai.chat.schema import ChatCompletionRequest
from distilgpt2_api.server.protocols.openai.completions.schema import CompletionRequest
from distilgpt2_api.server.protocols.score.schema import ScoreRequest
from distilgpt2_api.server.protocols.tgi.schema import TgiParameters
from distilgpt2_api.server.schema.no_ops import NO_OP_VALUES
from distilgpt2_api.server.schema.reference_apis import REFERENCE_APIS, ReferenceApi
from distilgpt2_api.server.schema.validation import Body, replacement_in

COMMON_DEFAULTS: dict[str, object] = {
    "model": "the served model",
    "n": 1,
    "seed": "random",
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
    reference_apis: tuple[ReferenceApi, ...]
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Defaults of fields whose null does not mean the engine's default."""
    prefix: str = ""
    """Path in the body to the object that holds the parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRow:
    name: str
    known_from: tuple[str, ...]
    """The APIs that have it; empty: only this service."""
    is_supported: bool
    values: str = ""
    """Description of the allowed values, if it is supported."""
    default: str = ""
    note: str = ""


COMPLETIONS = ParameterTable(
    path="/v1/completions",
    model=CompletionRequest,
    reference_apis=(REFERENCE_APIS["openai_completion"], REFERENCE_APIS["vllm_completion"]),
    defaults=SAMPLING_DEFAULTS
    | {
        "prompt": "the end-of-text token",
        "best_of": "`n`",
        "length_penalty": 1,
        "truncation_side": "`left`",
        "add_special_tokens": True,
    },
)
CHAT = ParameterTable(
    path="/v1/chat/completions",
    model=ChatCompletionRequest,
    reference_apis=(REFERENCE_APIS["openai_chat"], REFERENCE_APIS["vllm_chat"]),
    defaults=SAMPLING_DEFAULTS
    | {
        "max_completion_tokens": "the rest of the context",
        "max_tokens": "the rest of the context",
        "top_logprobs": 0,
        "add_generation_prompt": "`true`, `false` with `continue_final_message`",
    },
)
GENERATE = ParameterTable(
    path="/generate",
    model=TgiParameters,
    reference_apis=(REFERENCE_APIS["tgi"],),
    defaults=COMMON_DEFAULTS
    | {
        "best_of": 1,
        "max_new_tokens": "1024, or the rest of the context",
        "repetition_penalty": 1,
        "temperature": 1,
    },
    prefix="parameters",
)
SCORE = ParameterTable(path="/v1/score", model=ScoreRequest, reference_apis=(), defaults=COMMON_DEFAULTS)
OLLAMA_GENERATE = ParameterTable(
    path="/api/generate",
    model=OllamaGenerateRequest,
    reference_apis=(REFERENCE_APIS["ollama"],),
    defaults={"model": "the served model", "stream": True, "top_logprobs": 0},
)
OLLAMA_OPTIONS = ParameterTable(
    path="/api/chat",
    model=OllamaOptions,
    reference_apis=(REFERENCE_APIS["ollama_options"],),
    defaults={**SAMPLING_DEFAULTS, **OLLAMA_DEFAULTS.params}
    | {"num_predict": -1, "num_ctx": "the model's context", "repeat_penalty": 1.0},
    prefix="options",
)
LLAMA_CPP = ParameterTable(
    path="/completion",
    model=LlamaCompletionRequest,
    reference_apis=(REFERENCE_APIS["llama_cpp"],),
    defaults={**SAMPLING_DEFAULTS, **LLAMA_CPP_DEFAULTS.params}
    | {"n_predict": -1, "n_cmpl": 1, "repeat_penalty": 1.0, "n_probs": 0},
)
TABLES = (COMPLETIONS, CHAT, GENERATE, OLLAMA_GENERATE, OLLAMA_OPTIONS, LLAMA_CPP, SCORE)


def rows_of(table: ParameterTable) -> Iterator[ParameterRow]:
    """Supported parameters in the order of the schema's classes, the most derived first; then refused ones by name."""
    schema = table.model.model_json_schema()
    fields = dict.fromkeys(name for cls in table.model.__mro__ for name in inspect.get_annotations(cls))
    supported = [name for name in fields if table.model.supports(name)]
    for name in supported:
        yield _supported_row(name, table, schema)
    referenced = {name for api in table.reference_apis for name in api.parameters}
    for name in sorted(referenced.difference(supported)):
        yield _refused_row(name, table)


def _refused_row(name: str, table: ParameterTable) -> ParameterRow:
    replacement = replacement_in(table.model, name)
    notes = [] if replacement is None else [f"use {replacement}"]
    if values := NO_OP_VALUES.get(name):
        notes.append("accepted: " + " or ".join("any text" if value is str else _as_json(value) for value in values))
    return ParameterRow(name=name, known_from=_owners(name, table), is_supported=False, note="; ".join(notes))


def _supported_row(name: str, table: ParameterTable, schema: dict[str, Any]) -> ParameterRow:
    info = table.model.model_fields[name]
    default = table.defaults.get(name)
    if info.is_required():
        words = "required"
    elif name in table.model.aliases:
        words = f"that of `{table.model.aliases[name]}`"
    elif isinstance(default, str):
        words = default
    elif default is not None:
        words = f"`{default:g}`" if isinstance(default, float) else _as_json(default)
    else:
        words = "`false`" if _is_bool(schema["properties"][name]) else "none"
    return ParameterRow(
        name=name,
        known_from=_owners(name, table),
        is_supported=True,
        values=describe_schema(schema["properties"][name], schema.get("$defs", {})),
        default=words,
        note=info.description or "",
    )


def _owners(name: str, table: ParameterTable) -> tuple[str, ...]:
    return tuple(api.name for api in table.reference_apis if name in api.parameters)


def _is_bool(schema: dict[str, Any]) -> bool:
    return any(branch.get("type") == "boolean" for branch in schema.get("anyOf", [schema]))


Schema = Mapping[str, Any]

PLURALS = {
    "string": "strings",
    "integer": "integers",
    "number": "numbers",
    "list": "lists",
    "object": "objects",
    "pair": "pairs",
}


def describe_schema(schema: Schema, definitions: Schema) -> str:
    """The values that a JSON Schema allows, as text; null, which means the default, is left out."""
    match schema:
        case {"$ref": str() as reference}:
            return describe_schema(definitions[reference.rpartition("/")[2]], definitions)
        case {"anyOf": list() as branches} | {"oneOf": list() as branches}:
            words = [describe_schema(branch, definitions) for branch in branches if branch.get("type") != "null"]
            return " or ".join(dict.fromkeys(words))
        case {"enum": list() as values}:
            return " or ".join(_as_json(value) for value in values)
        case {"const": value}:
            return _as_json(value)
    return _describe_type(schema, definitions)


def _describe_type(schema: Schema, definitions: Schema) -> str:
    match schema.get("type"):
        case "boolean":
            words = "boolean"
        case "integer" | "number" as kind:
            words = " ".join([kind, *_bounds(schema)])
        case "string":
            words = f"string of at most {schema['maxLength']} characters" if "maxLength" in schema else "string"
        case "array":
            words = _describe_list(schema, definitions)
        case "object":
            words = _describe_object(schema, definitions)
        case _:
            words = "any"
    return words


def _describe_list(schema: Schema, definitions: Schema) -> str:
    if "prefixItems" in schema:
        return "pair of " + " and ".join(describe_schema(item, definitions) for item in schema["prefixItems"])
    most = f"at most {schema['maxItems']} " if "maxItems" in schema else ""
    noun, space, rest = describe_schema(schema["items"], definitions).partition(" ")
    return f"list of {most}{PLURALS.get(noun, noun)}{space}{rest}"


def _describe_object(schema: Schema, definitions: Schema) -> str:
    if "properties" in schema:
        return "object with " + ", ".join(f"`{name}`" for name in schema["properties"])
    values = list(schema.get("patternProperties", {}).values())
    return f"object with values: {describe_schema(values[0], definitions)}" if values else "object"


def _bounds(schema: Schema) -> Iterator[str]:
    for key, word in (
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    ):
        if key in schema:
            yield f"{word} {_number(schema[key])}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _as_json(value: object) -> str:
    return f"`{json.dumps(value)}`"
