"""The register of sampling parameters: each is declared here, once.

Request schemas, the command line, `TextGenerator`, beam search's refusals, the playground and docs/api.md are derived
from the fields of `SamplingParams`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from distilgpt2_api.core.grammar import Grammar

Derived = TypeVar("Derived")

GREEDY_TEMPERATURE = 1e-5
"""A lower temperature means greedy decoding: the division would overflow float32 logits."""
MAX_COUNT = 2**31
"""The maximum of counts: above any context and vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter's entry in the register, beside its name, type and neutral value."""

    name: str
    type: type[int | float | bool]
    neutral: int | float | bool
    description: str
    minimum: float | None
    maximum: float | None
    excludes_minimum: bool = False


def _number(neutral: float, description: str, least: float, most: float, **options: bool) -> Any:
    """A number from `least` to `most` that requests have under the same name. `options`: see `_field`, `Parameter`."""
    return _field(neutral, description=description, minimum=least, maximum=most, **options)


def _flag(description: str, *, neutral: bool = False, beams: bool = False) -> Any:
    """A truth value that requests have under the same name."""
    return _field(neutral, description=description, minimum=None, maximum=None, beams=beams)


def _field(neutral: object, *, edits: bool = False, beams: bool = False, **entry: object) -> Any:
    """`edits`: a value that is not neutral edits a row's logits. `beams`: beam search follows the parameter."""
    return field(default=neutral, metadata={"edits_logits": edits, "beam_search": beams, "entry": entry})


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """One request's sampling parameters, validated where the request came in; the defaults are neutral.

    The order in which they act on a row of logits: `logit_bias`, bans (`min_tokens`, `no_repeat_ngram_size`,
    `bad_words`, `allowed_token_ids`, `grammar`), `repetition_penalty`, `presence_penalty` and `frequency_penalty`,
    `temperature`, `typical_p`, `top_k`, `top_p`, `min_p`.

    Sources: top-p Holtzman et al. 2020, min-p Nguyen et al. 2024, typical Meister et al. 2023, repetition penalty
    Keskar et al. 2019.
    """

    max_tokens: int = _field(16, beams=True)
    """Completion tokens at most; 0 scores the prompt only."""
    min_tokens: int = _number(
        0,
        "No end of text, and none of `stop_token_ids`, before that many completion tokens.",
        *(0, MAX_COUNT),
        edits=True,
        beams=True,
    )
    temperature: float = _number(1.0, "Divides the logits; 0 is greedy.", 0, 2)
    top_k: int = _number(0, "Only the k likeliest tokens; 0 is off.", 0, MAX_COUNT)
    top_p: float = _number(1.0, "Only the likeliest tokens that together have this probability; 1 is off.", 0, 1)
    min_p: float = _number(0.0, "Only tokens with this share of the likeliest token's probability; 0 is off.", 0, 1)
    typical_p: float = _number(
        1.0,
        "Only the tokens nearest to the expected surprise that together have this probability; 1 is off.",
        *(0, 1),
        excludes_minimum=True,
    )
    presence_penalty: float = _number(
        0.0, "Subtracted once from the logit of each token that the completion has.", -2, 2, edits=True
    )
    frequency_penalty: float = _number(
        0.0, "Subtracted from a token's logit for each time that the completion has it.", -2, 2, edits=True
    )
    repetition_penalty: float = _number(
        1.0,
        "Divides positive and multiplies negative logits of tokens in prompt or completion; 1 is off.",
        *(0.01, 100),
        edits=True,
    )
    no_repeat_ngram_size: int = _number(
        0, "No n-gram of this size occurs twice in prompt and completion; 0 is off.", 0, MAX_COUNT, edits=True
    )
    logit_bias: tuple[tuple[int, float], ...] = _field((), edits=True)
    """(token id, added to its logit)."""
    bad_words: tuple[tuple[int, ...], ...] = _field((), edits=True)
    """Sequences of token ids that the completion must not have: the last token of one can't follow the others."""
    allowed_token_ids: tuple[int, ...] = _field((), edits=True)
    """Only these can be drawn; empty is off. The end of text is drawn only if it is among them."""
    grammar: Grammar | None = _field(None, edits=True)  # noqa: RUF009 - it makes a field, of an immutable default
    """What the completion's text must be; the end of text comes when it is complete, and not before."""
    seed: int = _field(0, beams=True)
    """Always set: a request without a seed gets a random one. The same seed draws the same text in any batch. Beam
    search draws nothing, so it gives the same text with any seed."""
    stop: tuple[str, ...] = _field(())
    """Stop sequences: the completion ends before the first of them."""
    include_stop_str_in_output: bool = _flag("The text ends with the stop sequence that ended it.", beams=True)
    stop_token_ids: tuple[int, ...] = _field((), beams=True)
    """Tokens that end the completion, beside the model's end of text."""
    ignore_eos: bool = _flag("The end of text is a token like any other.", beams=True)
    skip_special_tokens: bool = _flag(
        "Special tokens that are drawn, as the end of text with `ignore_eos`, are not part of the text, and no stop "
        "sequence is found in them. Log-probabilities list them.",
        neutral=True,
        beams=True,
    )
    num_logprobs: int | None = _field(None, beams=True)
    """None: no log-probabilities; n: of the token drawn and of the n likeliest ones."""
    num_prompt_logprobs: int | None = _field(None, beams=True)
    """The same for prompt tokens, from `first_scored_token` on."""
    first_scored_token: int = _field(1, beams=True)
    """Position in the prompt, from 1: nothing predicts the token at 0. Earlier tokens cost no logits, and may come from
    the prefix cache."""
    has_logits_processors: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether a row's logits are edited before a token is drawn from them. Set from the fields that say so."""
    _derived: dict[type, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        edits = self.is_typical or any(getattr(self, name) != neutral for name, neutral in LOGITS_EDITING.items())
        object.__setattr__(self, "has_logits_processors", edits)

    def derive(self, kind: type[Derived], make: Callable[[], Derived]) -> Derived:
        """What other layers compile these parameters to: made once, and shared by all sequences of the request.

        `AsyncEngine` does it on the event loop, so that the engine thread finds it made. `kind` is immutable.
        """
        if kind not in self._derived:
            self._derived[kind] = make()
        derived: Derived = self._derived[kind]
        return derived

    @property
    def is_ended_by_eos(self) -> bool:
        """With a grammar the end of text always ends the text: it is drawn only when the text is complete."""
        return not self.ignore_eos or self.grammar is not None

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_TEMPERATURE

    @property
    def is_typical(self) -> bool:
        """Whether `typical_p` excludes any token. Greedy decoding ignores it, as every other truncation."""
        return self.typical_p < 1.0 and not self.is_greedy


def _entry(item: Field[Any]) -> Parameter:
    assert isinstance(item.default, int | float)
    return Parameter(name=item.name, type=type(item.default), neutral=item.default, **item.metadata["entry"])


PARAMETERS = tuple(item for item in fields(SamplingParams) if item.init)
"""The fields of `SamplingParams` that a request sets."""
PLAIN_PARAMETERS: Mapping[str, Parameter] = {item.name: _entry(item) for item in PARAMETERS if item.metadata["entry"]}
"""By name, those that requests have under the same name, as a number or a truth value."""
LOGITS_EDITING: Mapping[str, object] = {item.name: item.default for item in PARAMETERS if item.metadata["edits_logits"]}
"""Fields that edit a row's logits, with their neutral values."""
BEAM_SEARCH_PARAMETERS = frozenset(item.name for item in PARAMETERS if item.metadata["beam_search"])
"""Fields that beam search follows; it refuses every other one that is not neutral."""
