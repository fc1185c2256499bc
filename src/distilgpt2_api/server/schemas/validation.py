"""Validation of bodies, with errors that name the parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from distilgpt2_api.core.errors import InvalidRequestError, UnsupportedParameterError
from distilgpt2_api.server.errors import UnknownParameterError

Model = TypeVar("Model", bound=BaseModel)


def _check_bool(value: object) -> object:
    """`0 == False` in Python, and for `Literal`; but not in JSON."""
    if value is not None and not isinstance(value, bool):
        raise ValueError("input should be a valid boolean")
    return value


OnlyTrue = Annotated[Literal[True], BeforeValidator(_check_bool)]
OnlyFalse = Annotated[Literal[False], BeforeValidator(_check_bool)]


class Body(BaseModel):
    """A request's body: no unknown field, no value taken for another (`"1"` and `true` are no integers)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def drop_neutral(body: Mapping[str, object], neutral_values: Mapping[str, tuple[object, ...]]) -> dict[str, object]:
    """The body without what `neutral_values` names. UnsupportedParameterError for one that asks for something."""
    for name, value in body.items():
        if name not in neutral_values or value is None:
            continue
        if not any(_is_same(value, neutral) for neutral in neutral_values[name]):
            raise UnsupportedParameterError(f"{name} is not supported here", param=name)
    return {name: value for name, value in body.items() if name not in neutral_values}


def _is_same(value: object, other: object) -> bool:
    """In JSON, where `1` is not `true`, as it is in Python."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def validate_body(model: type[Model], body: dict[str, object]) -> Model:
    """Raises InvalidRequestError for the first thing wrong, with the parameter's name."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise error_of(error.errors(include_url=False)[0]) from None


def error_of(details: ErrorDetails | dict[str, Any]) -> InvalidRequestError:
    """Pydantic's error in our words. Values are not repeated: they may be the prompt."""
    # What pydantic calls a branch of a union is no part of the parameter's name.
    path = [part for part in details["loc"] if isinstance(part, int) or part.isidentifier() or part.isdecimal()]
    param = ".".join(str(part) for part in path)[:100] or None
    if details["type"] == "extra_forbidden":
        name = str(details["loc"][-1])[:100]
        return UnknownParameterError(f"unknown parameter: {name!r}", param=name)
    if details["type"] == "missing":
        return InvalidRequestError(f"{param} is required", param=param)
    message = details["msg"].removeprefix("Value error, ")
    return InvalidRequestError(f"{param}: {message[:1].lower()}{message[1:]}", param=param)
