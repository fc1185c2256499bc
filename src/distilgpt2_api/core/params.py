"""The register of sampling parameters: each is declared here, once.

Request schemas, the command line, `TextGenerator`, beam search's refusals, the playground and docs/api.md are derived
from the fields of `SamplingParams`.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
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
    choices: tuple[int, ...] = ()
    """The only values, if not all within the bounds."""

    @property
    def allowed(self) -> str:
        """The type and the bounds in words, for error messages."""
        if self.minimum is None:
            return "true or false"
        kind = "whole number" if self.type is int else "number"
        return f"a {kind} {'above' if self.excludes_minimum else 'from'} {self.minimum:g} to {self.maximum:g}"

    def allows(self, value: object) -> bool:
        """Whether a value has the type and is within the bounds. A whole number is a number, and NaN is within none."""
        if self.minimum is None or self.maximum is None or isinstance(value, bool):
            return self.type is bool and isinstance(value, bool)
        if not isinstance(value, Integral if self.type is int else Real):
            return False
        number = float(value)
        is_above = self.minimum < number if self.excludes_minimum else self.minimum <= number
        return is_above and number <= self.maximum


def _number(
    neutral: float, description: str, least: float, most: float, *, choices: tuple[int, ...] = (), **options: bool
) -> Any:
    """A number from `least` to `most` that requests have under the same name. `options`: see `_field`, `Parameter`."""
    return _field(neutral, description=description, minimum=least, maximum=most, choices=choices, **options)


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
    `bad_words`, `allowed_token_ids`, `grammar`), then the samplers in the order of `SAMPLERS`.

    Sources: top-p Holtzman et al. 2020, min-p Nguyen et al. 2024, typical Meister et al. 2023, repetition penalty
    Keskar et al. 2019, top-n-sigma Tang et al. 2024, mirostat Basu et al. 2021; DRY, XTC (Weidmann 2024) and dynamic
    temperature as in llama.cpp.
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
    top_n_sigma: float = _number(
        -1.0, "Only tokens within this many standard deviations of the largest logit; 0 or less is off.", -1, 100
    )
    temperature: float = _number(1.0, "Divides the logits; 0 is greedy.", 0, 2)
    dynatemp_range: float = _number(
        0.0, "The temperature is up to this much lower where the model is sure, and higher where it is not.", 0, 2
    )
    dynatemp_exponent: float = _number(
        1.0, "With `dynatemp_range`: above 1 the temperature rises late, below 1 early.", 0, 10
    )
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
    xtc_probability: float = _number(
        0.0, "The probability that the likeliest tokens are excluded at a position (XTC); 0 is off.", 0, 1
    )
    xtc_threshold: float = _number(
        0.1, "XTC excludes the tokens with at least this probability, but the least likely of them.", 0, 1
    )
    mirostat: int = _number(
        0,
        "2: only tokens below a surprise that keeps the text's mean at `mirostat_tau`; 0 is off.",
        0,
        2,
        choices=(0, 2),
    )
    mirostat_tau: float = _number(5.0, "The mean surprise of a token that mirostat aims at, in bits.", 0, 100)
    mirostat_eta: float = _number(0.1, "How fast mirostat follows the surprise.", 0, 1)
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
    repeat_last_n: int = _number(
        -1, "The penalties above count only the last tokens, this many; -1: all of them. 0: none.", -1, MAX_COUNT
    )
    dry_multiplier: float = _number(
        0.0,
        "Penalises tokens that would continue a repetition (DRY), more the longer it is; 0 is off.",
        0,
        100,
        edits=True,
    )
    dry_base: float = _number(1.75, "DRY's penalty grows by this factor with each repeated token.", 1, 100)
    dry_allowed_length: int = _number(2, "DRY allows repetitions of fewer tokens than this.", 1, MAX_COUNT)
    dry_penalty_last_n: int = _number(
        -1, "DRY searches only the last tokens, this many; -1: all of them. 0: none.", -1, MAX_COUNT
    )
    dry_sequence_breakers: tuple[str, ...] = _field(("\n", ":", '"', "*"))
    """Texts that a repetition never spans, and which DRY never penalises."""
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

    @property
    def allows_drafts(self) -> bool:
        """A grammar's mask, and what mirostat remembers, are for one position."""
        return self.grammar is None and not self.mirostat


def _entry(item: Field[Any]) -> Parameter:
    assert isinstance(item.default, int | float)
    return Parameter(name=item.name, type=type(item.default), neutral=item.default, **item.metadata["entry"])


SAMPLERS: Mapping[str, tuple[str, ...]] = {
    "penalties": ("repetition_penalty", "presence_penalty", "frequency_penalty", "repeat_last_n"),
    "dry": ("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n"),
    "top_n_sigma": ("top_n_sigma",),
    "temperature": ("temperature", "dynatemp_range", "dynatemp_exponent"),
    "typ_p": ("typical_p",),
    "top_k": ("top_k",),
    "top_p": ("top_p",),
    "min_p": ("min_p",),
    "xtc": ("xtc_probability", "xtc_threshold"),
    "mirostat": ("mirostat", "mirostat_tau", "mirostat_eta"),
}
"""The samplers in the order in which they apply, by llama.cpp's names, with their plain parameters."""
MIROSTAT_REPLACES = ("top_n_sigma", "typical_p", "top_k", "top_p", "min_p", "xtc_probability")
"""Parameters whose defaults mirostat turns off, as in llama.cpp. A request may still set them: they apply before it."""
PARAMETERS = tuple(item for item in fields(SamplingParams) if item.init)
"""The fields of `SamplingParams` that a request sets."""
PLAIN_PARAMETERS: Mapping[str, Parameter] = {item.name: _entry(item) for item in PARAMETERS if item.metadata["entry"]}
"""Numbers and truth values that requests have under the same name, by name."""
LOGITS_EDITING: Mapping[str, object] = {item.name: item.default for item in PARAMETERS if item.metadata["edits_logits"]}
"""Fields that edit a row's logits, with their neutral values."""
BEAM_SEARCH_PARAMETERS = frozenset(item.name for item in PARAMETERS if item.metadata["beam_search"])
"""Fields that beam search follows; it refuses every other one that is not neutral."""
