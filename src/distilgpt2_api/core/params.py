"""How a completion is drawn, as the engine understands it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from distilgpt2_api.core.grammar import Grammar

Derived = TypeVar("Derived")

GREEDY_TEMPERATURE = 1e-5
"""Below this a temperature is greedy decoding: the division would overflow float32 logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """One request's sampling parameters, validated at the door; the defaults change nothing.

    The order in which they act on a row of logits: `logit_bias`, bans (`min_tokens`, `no_repeat_ngram_size`,
    `bad_words`, `allowed_token_ids`, `grammar`), `repetition_penalty`, `presence_penalty` and `frequency_penalty`,
    `temperature`, `typical_p`, `top_k`, `top_p`, `min_p`.
    """

    max_tokens: int = 16
    """Completion tokens at most; 0 scores the prompt only."""
    min_tokens: int = 0
    """End of text and `stop_token_ids` can't be drawn before this many completion tokens."""
    temperature: float = 1.0
    """Below `GREEDY_TEMPERATURE`: greedy."""
    top_k: int = 0
    """Only the k most likely tokens; 0 is off."""
    top_p: float = 1.0
    """The smallest set of most likely tokens whose probability reaches p (Holtzman et al. 2020); 1 is off."""
    min_p: float = 0.0
    """Only tokens with at least this fraction of the likeliest token's probability (Nguyen et al. 2024); 0 is off."""
    typical_p: float = 1.0
    """The tokens whose information is nearest to the average, the fewest whose probability reaches p (Meister et al.
    2023); 1 is off."""
    presence_penalty: float = 0.0
    """Taken once from the logit of each token that the completion has."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time that the completion has it."""
    repetition_penalty: float = 1.0
    """Divides positive, multiplies negative logits of tokens in prompt or completion (Keskar et al. 2019); 1 is off."""
    no_repeat_ngram_size: int = 0
    """No n-gram of prompt and completion occurs twice; 0 is off."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, added to its logit)."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Sequences of token ids that the completion must not have: the last token of one can't follow the others."""
    allowed_token_ids: tuple[int, ...] = ()
    """Nothing else can be drawn; empty is off. The end of text is drawn only if it is among them."""
    grammar: Grammar | None = None
    """What the completion's text must be; the end of text comes when it is whole, and not before."""
    seed: int = 0
    """Always set: a caller without a wish gets one drawn at the door. The same seed draws the same in any batch."""
    stop: tuple[str, ...] = ()
    """Stop sequences: the completion ends before the first of them."""
    include_stop_str_in_output: bool = False
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the completion, beside the model's end of text."""
    ignore_eos: bool = False
    """The model's end of text is a token like any other."""
    skip_special_tokens: bool = True
    """Special tokens stand for no text, and no stop sequence is found in them. Log-probabilities list them anyway."""
    num_logprobs: int | None = None
    """None: no log-probabilities; n: of the token drawn and of the n likeliest ones."""
    num_prompt_logprobs: int | None = None
    """The same for prompt tokens, from `first_scored_token` on."""
    first_scored_token: int = 1
    """Place in the prompt, from 1: nothing predicts the token at 0. What stands before it costs no logits, and may come
    from the prefix cache."""
    _derived: dict[type, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

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
    def has_logits_processors(self) -> bool:
        """Whether a row's logits are edited before a token is drawn from them."""
        return bool(
            self.logit_bias
            or self.min_tokens
            or self.no_repeat_ngram_size
            or self.repetition_penalty != 1.0
            or self.presence_penalty
            or self.frequency_penalty
            or self.bad_words
            or self.allowed_token_ids
            or self.grammar
            or self.is_typical
        )

    @property
    def is_typical(self) -> bool:
        """Whether `typical_p` cuts anything. Greedy decoding has no use for it, nor for any other truncation."""
        return self.typical_p < 1.0 and not self.is_greedy


PARAMETERS = tuple(item for item in fields(SamplingParams) if item.init)
"""Its fields that a request sets."""
