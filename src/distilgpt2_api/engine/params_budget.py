"""Bounds the memory of the parameters of all requests in flight."""

from dataclasses import dataclass

from distilgpt2_api.core.errors import OverloadedError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.model.sampling.repetition import SequenceBreakers

MAX_ENTRIES = 1 << 20
"""An entry takes about 130 bytes. One request may have 200 000: a bias for each token of GPT-2, and lists of ids."""


@dataclass(slots=True)
class HeldParams:
    """Mutable: parameters that one or more requests hold."""

    params: SamplingParams
    num_entries: int
    num_requests: int = 0


class ParamsBudget:
    """Bounds the total length of the lists in the parameters of requests in flight. Event loop only.

    Parameters that several requests share, such as the prompts of one HTTP request, count once.
    """

    def __init__(self, *, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._num_entries = 0
        self._held: dict[int, HeldParams] = {}
        """Maps the id of a parameters object, unique while it is held."""

    def check(self, params: SamplingParams) -> None:
        """Raises OverloadedError if requests in flight hold too much. Without others, any request is admitted."""
        if self._num_entries and id(params) not in self._held:
            num_entries = _count_entries(params)
            if num_entries and self._num_entries + num_entries > self._max_entries:
                raise OverloadedError(
                    "the service is overloaded: the requests in flight have too many stop sequences, bad words, biases,"
                    " sequence breakers and token ids; try again later"
                )

    def hold(self, params: SamplingParams) -> None:
        """Count the parameters of a new request."""
        held = self._held.get(id(params))
        if held is None:
            held = self._held[id(params)] = HeldParams(params, _count_entries(params))
            self._num_entries += held.num_entries
        held.num_requests += 1

    def release(self, params: SamplingParams) -> None:
        """Release the parameters of a request that has ended."""
        held = self._held[id(params)]
        held.num_requests -= 1
        if not held.num_requests:
            del self._held[id(params)]
            self._num_entries -= held.num_entries


def _count_entries(params: SamplingParams) -> int:
    return (
        len(params.logit_bias)
        + len(params.allowed_token_ids)
        + len(params.stop_token_ids)
        + sum(map(len, params.bad_words))
        + sum(map(len, params.stop))
        + (SequenceBreakers.of(params).num_tokens if params.dry_multiplier else 0)
    )
