"""Validation of request bodies, with errors that name the parameter."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from distilgpt2_api.core.errors import InvalidRequestError, UnsupportedParameterError
from distilgpt2_api.server.http.errors import UnknownParameterError
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.no_ops import NO_OP_VALUES, NULL_VALUES, is_among
from distilgpt2_api.server.schema.reference_apis import REFERENCE_PARAMETERS
from distilgpt2_api.server.schema.replacements import REPLACEMENTS, Replacement

JSON_TYPES = {bool: "boolean", list: "array"}
Model = TypeVar("Model", bound="Body")


def _check_bool(value: object) -> object:
    """Refuse numbers: `0 == False` in Python and for `Literal`, but not in JSON."""
    if value is not None and not isinstance(value, bool):
        raise ValueError("input should be a valid boolean")
    return value


OnlyTrue = Annotated[Literal[True], BeforeValidator(_check_bool)]
OnlyFalse = Annotated[Literal[False], BeforeValidator(_check_bool)]


def _allow_null_values(schema: dict[str, Any]) -> None:
    """Add the values that `drop_no_ops` treats as null to a model's JSON schema."""
    for name in NULL_VALUES.keys() & schema.get("properties", {}).keys():
        branches = schema["properties"][name]["anyOf"]
        missing = [value for value in NULL_VALUES[name] if JSON_TYPES[type(value)] not in {b["type"] for b in branches}]
        branches[-1:-1] = [{"type": JSON_TYPES[type(value)], "const": value} for value in missing]


class Body(DeferredModel):
    """A request's body: no unknown fields, no conversion between types (`"1"` and `true` are not integers)."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra=_allow_null_values
    )

    aliases: ClassVar[Mapping[str, str]] = {}
    """Fields that are other names of a field. Both may be set, to the same value."""
    unsupported: ClassVar[frozenset[str]] = frozenset()
    """Fields that the protocol has, but which accept only values without effect."""

    @model_validator(mode="after")
    def _merge_aliases(self) -> Self:
        """Raises InvalidRequestError."""
        merged: dict[str, object] = {}
        for other_name, name in self.aliases.items():
            value = getattr(self, other_name)
            if value is None:
                continue
            own = merged.setdefault(name, value if getattr(self, name) is None else getattr(self, name))
            if value not in (own, [own]):  # a text may be written as a list of one
                raise InvalidRequestError(
                    f"{other_name} is another name of {name}, and their values differ; send only one of them",
                    param=other_name,
                )
        return self.model_copy(update=merged) if merged else self

    @classmethod
    def supports(cls, name: str) -> bool:
        return name in supported_fields(cls)


def drop_no_ops(model: type[Body], body: Mapping[str, object]) -> dict[str, object]:
    """The body without values that have no effect. UnsupportedParameterError for others that `model` lacks."""
    kept: dict[str, object] = {}
    fields = supported_fields(model)
    for name, value in body.items():
        if name in fields:
            nested = fields[name]
            if nested is not None and isinstance(value, dict):
                kept[name] = drop_no_ops(nested, value)
            elif not is_among(value, NULL_VALUES.get(name, ())):
                kept[name] = value
        elif (value is None and name in REFERENCE_PARAMETERS) or is_among(value, NULL_VALUES.get(name, ())):
            continue
        elif name not in NO_OP_VALUES:
            kept[name] = value
        elif value is not None and not is_among(value, NO_OP_VALUES[name]):
            raise UnsupportedParameterError(f"{name} is not supported here; {_advice(model, name)}", param=name)
    return kept


@cache
def supported_fields(model: type[Body]) -> Mapping[str, type[Body] | None]:
    """The fields of `model` that have an effect, each with the model of its value if it is an object with fields."""
    fields = {name: field for name, field in model.model_fields.items() if name not in model.unsupported}
    return {name: next(_bodies_in(field.annotation), None) for name, field in fields.items()}


def _bodies_in(annotation: object) -> Iterator[type[Body]]:
    if isinstance(annotation, type) and issubclass(annotation, Body):
        yield annotation
    for argument in get_args(annotation):
        yield from _bodies_in(argument)


def replacement_in(model: type[Body], name: str) -> str | None:
    """The field of `model` that replaces a parameter that it lacks: Markdown, with a remark. None: there is none."""
    replacement = REPLACEMENTS.get(name, Replacement(()))
    found = _path_in(model, (name, *replacement.names))
    if found is None:
        return None
    is_renamed = found.rpartition(".")[2] != name
    return f"`{found}`" + (f", {replacement.remark}" if replacement.remark and is_renamed else "")


def _path_in(model: type[Body], names: tuple[str, ...]) -> str | None:
    """The path of the first field with one of the names, in the model itself or in a nested one."""
    if (own := next(filter(model.supports, names), None)) is not None:
        return own
    for field, nested in supported_fields(model).items():
        if nested is not None and (found := _path_in(nested, names)) is not None:
            return f"{field}.{found}"
    return None


def _advice(model: type[Body], name: str) -> str:
    if (replacement := replacement_in(model, name)) is not None:
        return f"use {replacement}"
    values = [json.dumps(value) for value in NO_OP_VALUES[name] if not isinstance(value, type)]
    return "leave it out, or send " + " or ".join(["null", *values])


def parse_body(model: type[Model], body: Mapping[str, object]) -> Model:
    """Raises InvalidRequestError, UnsupportedParameterError for parameters that only the reference APIs have."""
    return validate_body(model, drop_no_ops(model, body))


def validate_body(model: type[Model], body: dict[str, object]) -> Model:
    """Raises InvalidRequestError for the first error, with the parameter's name."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise error_of(error.errors(include_url=False)[0], model) from None


def error_of(details: ErrorDetails | dict[str, Any], model: type[Body] | None = None) -> InvalidRequestError:
    """Pydantic's error as our own, without the value: it may be the prompt. `model`: the model that was validated."""
    # Pydantic's names for the branches of a union are not part of the parameter's name.
    path = [part for part in details["loc"] if isinstance(part, int) or part.isidentifier() or part.isdecimal()]
    param = ".".join(str(part) for part in path)[:100] or None
    if details["type"] == "extra_forbidden":
        name = str(details["loc"][-1])[:100]
        for part in details["loc"][:-1]:
            model = model and supported_fields(model).get(str(part))
        replacement = model and replacement_in(model, name)
        hint = f"; use {replacement}" if replacement else ""
        return UnknownParameterError(f"unknown parameter: {name!r}{hint}", param=name)
    if details["type"] == "missing":
        return InvalidRequestError(f"{param} is required", param=param)
    message = details["msg"].removeprefix("Value error, ")
    return InvalidRequestError(f"{param}: {message[:1].lower()}{message[1:]}", param=param)
