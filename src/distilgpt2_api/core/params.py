"""The register of sampling parameters: each is declared here, once.

Request schemas, the command line, `TextGenerator`, beam search's refusals, the playground and docs/api.md are derived
from the fields of `SamplingParams`.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from distilgpt2_api.core.grammar import Grammar

Derived = TypeVar("Derived")

GREEDY_TEMPERATURE = 1e-5
"""Lower temperatures mean greedy decoding, because the division would overflow float32 logits."""
MAX_COUNT = 2**31
"""The maximum of counts: more than any context or vocabulary."""


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
    """One request's sampling parameters, validated by the entry point. The defaults are neutral.

    They apply to a row of logits in this order: `logit_bias`, bans (`min_tokens`, `no_repeat_ngram_size`,
    `bad_words`, `allowed_token_ids`, `grammar`), `repetition_penalty`, `presence_penalty` and `frequency_penalty`,
    `temperature`, `typical_p`, `top_k`, `top_p`, `min_p`.

    Sources: top-p Holtzman et al. 2020, min-p Nguyen et al. 2024, typical Meister et al. 2023, repetition penalty
    Keskar et al. 2019.
    """

    max_tokens: int = _field(16, beams=True)
    """Maximum completion tokens. 0 only scores the prompt."""
    min_tokens: int = _number(
        0,
        "Minimum completion tokens before the end of text or one of `stop_token_ids`.",
        *(0, MAX_COUNT),
        edits=True,
        beams=True,
    )
    temperature: float = _number(1.0, "Divides the logits; 0 is greedy.", 0, 2)
    top_k: int = _number(0, "Only the k likeliest tokens; 0 is off.", 0, MAX_COUNT)
    top_p: float = _number(1.0, "Only the likeliest tokens that together have this probability; 1 is off.", 0, 1)
    min_p: float = _number(
        0.0, "Only tokens with at least this share of the likeliest token's probability; 0 is off.", 0, 1
    )
    typical_p: float = _number(
        1.0,
        "Only the tokens nearest to the expected surprise that together have this probability; 1 is off.",
        *(0, 1),
        excludes_minimum=True,
    )
    presence_penalty: float = _number(
        0.0, "Subtracted once from the logit of each token that occurs in the completion.", -2, 2, edits=True
    )
    frequency_penalty: float = _number(
        0.0, "Subtracted from a token's logit for each time that it occurs in the completion.", -2, 2, edits=True
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
    """Pairs of a token id and the value to add to its logit."""
    bad_words: tuple[tuple[int, ...], ...] = _field((), edits=True)
    """Sequences of token ids that must not occur in the completion: the last token is banned after the others."""
    allowed_token_ids: tuple[int, ...] = _field((), edits=True)
    """The only tokens that can be sampled; empty is off. The end of text is banned unless it is among them."""
    grammar: Grammar | None = _field(None, edits=True)  # noqa: RUF009 - it makes a field, of an immutable default
    """Constrains the completion's text. The end of text is allowed only when the text is complete."""
    seed: int = _field(0, beams=True)
    """Always set: a request without a seed gets a random one. A seed gives the same text in any batch. Beam search does
    not sample, so it gives the same text with any seed."""
    stop: tuple[str, ...] = _field(())
    """Stop sequences. The completion ends before the first that occurs."""
    include_stop_str_in_output: bool = _flag("The text ends with the stop sequence that ended it.", beams=True)
    stop_token_ids: tuple[int, ...] = _field((), beams=True)
    """Tokens that end the completion, in addition to the model's end of text."""
    ignore_eos: bool = _flag("The end of text is a token like any other.", beams=True)
    skip_special_tokens: bool = _flag(
        "Special tokens that are sampled, such as the end of text with `ignore_eos`, are not part of the text, and "
        "stop sequences are not matched in them. Log-probabilities list them.",
        neutral=True,
        beams=True,
    )
    num_logprobs: int | None = _field(None, beams=True)
    """None: no log-probabilities. n: those of the sampled token and of the n likeliest ones."""
    num_prompt_logprobs: int | None = _field(None, beams=True)
    """The same for prompt tokens from `first_scored_token` on."""
    first_scored_token: int = _field(1, beams=True)
    """Position in the prompt, at least 1, because nothing predicts the token at 0. Earlier tokens need no logits and
    may come from the prefix cache."""
    has_logits_processors: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether logits are edited before sampling. Derived from the fields declared with `edits`."""
    _derived: dict[type, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        edits = any(getattr(self, name) != neutral for name, neutral in LOGITS_EDITING.items())
        object.__setattr__(self, "has_logits_processors", edits)

    def derive(self, kind: type[Derived], make: Callable[[], Derived]) -> Derived:
        """The form of class `kind`, immutable, to which a layer compiles these parameters, once for all sequences.

        `AsyncEngine` compiles them on the event loop, so that the engine thread does not have to.
        """
        if kind not in self._derived:
            self._derived[kind] = make()
        derived: Derived = self._derived[kind]
        return derived

    @property
    def is_ended_by_eos(self) -> bool:
        """With a grammar, the end of text always ends the sequence: it is allowed only after a complete text."""
        return not self.ignore_eos or self.grammar is not None

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_TEMPERATURE


def _entry(item: Field[Any]) -> Parameter:
    assert isinstance(item.default, int | float)
    return Parameter(name=item.name, type=type(item.default), neutral=item.default, **item.metadata["entry"])


PARAMETERS = tuple(item for item in fields(SamplingParams) if item.init)
"""The fields of `SamplingParams` that a request sets."""
PLAIN_PARAMETERS: Mapping[str, Parameter] = {item.name: _entry(item) for item in PARAMETERS if item.metadata["entry"]}
"""Numbers and truth values that requests have under the same name, by name."""
LOGITS_EDITING: Mapping[str, object] = {item.name: item.default for item in PARAMETERS if item.metadata["edits_logits"]}
"""Fields that edit a row's logits, with their neutral values."""
BEAM_SEARCH_PARAMETERS = frozenset(item.name for item in PARAMETERS if item.metadata["beam_search"])
"""Fields that beam search follows; it refuses every other one that is not neutral."""
