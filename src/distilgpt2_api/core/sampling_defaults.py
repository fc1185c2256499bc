"""A service's own defaults of sampling parameters, for what a request leaves out."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from distilgpt2_api.core.params import MAX_COUNT, PLAIN_PARAMETERS, Parameter

MAX_TOKENS = "max_new_tokens"
"""The name of the length's limit in a model's generation_config.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """A protocol's own default applies to everything that is not set here."""

    params: Mapping[str, Any] = field(default_factory=dict)
    """Values of plain parameters, by name."""
    max_tokens: int | None = None
    """Maximum completion tokens. A prompt that leaves less room gets what is left."""

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Checks names, types and bounds. Raises ValueError, which names the parameter."""
        params = dict(values)
        max_tokens = params.pop(MAX_TOKENS, None)
        if max_tokens is not None and not (type(max_tokens) is int and 1 <= max_tokens <= MAX_COUNT):
            raise ValueError(f"{MAX_TOKENS} must be a whole number from 1 to {MAX_COUNT}")
        for name in params:
            if name not in PLAIN_PARAMETERS:
                known = ", ".join((MAX_TOKENS, *PLAIN_PARAMETERS))
                raise ValueError(f"{name[:100]!r} is none of the parameters that can have a default: {known}")
        return cls(
            params={name: _check(PLAIN_PARAMETERS[name], params[name]) for name in params}, max_tokens=max_tokens
        )

    def over(self, other: "SamplingDefaults") -> "SamplingDefaults":
        """These, then the other ones."""
        max_tokens = other.max_tokens if self.max_tokens is None else self.max_tokens
        return SamplingDefaults(params={**other.params, **self.params}, max_tokens=max_tokens)

    def only(self, names: Iterable[str]) -> "SamplingDefaults":
        """Without the parameters that are not in `names`."""
        allowed = frozenset(names)
        params = {name: value for name, value in self.params.items() if name in allowed}
        return SamplingDefaults(params=params, max_tokens=self.max_tokens)

    def limit(self, otherwise: int, num_left: int) -> int:
        """The default of the maximum of completion tokens: at most `num_left`, if it is set here; else `otherwise`."""
        return otherwise if self.max_tokens is None else max(1, min(self.max_tokens, num_left))

    def __str__(self) -> str:
        """JSON; empty without defaults."""
        return json.dumps(self.as_dict()) if self != NO_DEFAULTS else ""

    def as_dict(self) -> dict[str, Any]:
        """By the names of a generation_config.json."""
        return {**self.params, **({} if self.max_tokens is None else {MAX_TOKENS: self.max_tokens})}


NO_DEFAULTS = SamplingDefaults()


def _check(entry: Parameter, value: Any) -> int | float | bool:
    if not entry.allows(value):
        raise ValueError(f"{entry.name} must be {entry.allowed}")
    return entry.type(value)
