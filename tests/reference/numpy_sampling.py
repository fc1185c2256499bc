"""Sampling in NumPy and float64, by sorting whole rows: the reference that the kernels' draws are compared with.

Random numbers are SplitMix64's in Python integers, so a seed and a position give the same token here and there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    """SplitMix64's mixing function."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) of the token at `position` of a sequence with this seed (modulo 2**64)."""
    return (mix(mix(seed & MASK) + (position + 1) * GOLDEN_GAMMA & MASK) >> 11) * 2.0**-53


def keep_tokens(
    logits: NDArray[np.float32],
    *,
    top_n_sigma: float = -1.0,
    temperature: float = 1.0,
    dynatemp_range: float = 0.0,
    dynatemp_exponent: float = 1.0,
    typical_p: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    xtc_threshold: float = 1.0,
    largest_surprisal: float = np.inf,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Token ids that can be sampled, in the order of the inverse CDF, and their probabilities.

    The order is descending by logit if top-k, top-p, min-p or mirostat apply, and otherwise that of the ids.
    `xtc_threshold`: of a draw in which XTC excludes tokens.
    """
    order = np.lexsort((np.arange(len(logits)), -logits.astype(np.float64)))
    sorted_logits = logits[order].astype(np.float64)
    if top_n_sigma > 0:
        deviation = sorted_logits[sorted_logits > -np.inf].std()
        is_near = sorted_logits >= sorted_logits[0] - top_n_sigma * deviation
        order, sorted_logits = order[is_near], sorted_logits[is_near]
    if dynatemp_range > 0:
        temperature = dynamic_temperature(sorted_logits, temperature, dynatemp_range, dynatemp_exponent)
    scaled = (sorted_logits - sorted_logits[0]) / max(temperature, 1e-9)
    masses = np.exp(scaled)
    if typical_p < 1.0:
        probabilities = masses / masses.sum()
        surprisals = -np.log(np.maximum(probabilities, 1e-300))
        distances = np.abs(surprisals - probabilities @ surprisals)
        nearest = np.argsort(distances)
        num_nearest = 1 + (np.cumsum(probabilities[nearest])[:-1] < typical_p).sum()
        is_typical = (distances <= distances[nearest[num_nearest - 1]] + 1e-12) & (masses > 0)
        order, masses = order[is_typical], masses[is_typical] / masses[is_typical].max()
    is_sorted = 0 < top_k < len(logits) or top_p < 1.0 or min_p > 0.0 or largest_surprisal < np.inf
    if top_k:
        order, masses = order[:top_k], masses[:top_k]
    before = np.cumsum(masses) - masses
    is_kept = (before < top_p * masses.sum()) & (masses >= min_p)
    is_kept[0] = True
    order, masses = order[is_kept], masses[is_kept]
    if xtc_threshold <= 0.5:
        num_excluded = max(int(((masses >= xtc_threshold * masses.sum()) & (masses > 0)).sum()) - 1, 0)
        order, masses = order[num_excluded:], masses[num_excluded:]
    if largest_surprisal < np.inf:
        is_kept = masses >= 2.0**-largest_surprisal * masses.sum()
        is_kept[0] = True
        order, masses = order[is_kept], masses[is_kept]
    if not is_sorted:
        by_id = np.argsort(order)
        order, masses = order[by_id], masses[by_id]
    return order, masses / masses.sum()


def dynamic_temperature(
    logits: NDArray[np.float64], temperature: float, temperature_range: float, exponent: float
) -> float:
    """Within `temperature_range` of the temperature, by the share of the greatest entropy that the row has at 1."""
    finite = logits[logits > -np.inf]
    if len(finite) < 2:
        return temperature
    probabilities = np.exp(finite - finite.max())
    probabilities /= probabilities.sum()
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum()
    lowest = max(temperature - temperature_range, 0.0)
    share = float(np.clip(entropy / np.log(len(finite)), 0.0, 1.0))
    return lowest + (temperature + temperature_range - lowest) * float(share**exponent)


def draw_with_surprisal(
    logits: NDArray[np.float32], *, seed: int, position: int, xtc_probability: float = 0.0, **parameters: float
) -> tuple[int, float]:
    """The token at `position`, and its surprisal in bits among the tokens that it was drawn from.

    `parameters` as in `keep_tokens`. Temperature 0 is greedy.
    """
    if parameters.get("temperature") == 0.0:
        return int(logits.argmax()), 0.0
    threshold = parameters.pop("xtc_threshold", 0.1)
    excludes = uniform(~seed, position) < xtc_probability
    token_ids, probabilities = keep_tokens(logits, xtc_threshold=threshold if excludes else 1.0, **parameters)  # type: ignore[arg-type]  # all are floats, also top_k
    found = np.searchsorted(np.cumsum(probabilities), uniform(seed, position), side="right")
    index = min(int(found), len(token_ids) - 1)
    return int(token_ids[index]), float(-np.log2(probabilities[index]))


def draw_token(logits: NDArray[np.float32], *, seed: int, position: int, **parameters: float) -> int:
    """The token at `position`; `parameters` as in `draw_with_surprisal`."""
    return draw_with_surprisal(logits, seed=seed, position=position, **parameters)[0]


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """(V,) → (V,)"""
    shifted = logits.astype(np.float64) - logits.max()
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def list_likeliest(logits: NDArray[np.float32], count: int) -> list[int]:
    """The `count` likeliest token ids, the likeliest first; among equals the lower id is first."""
    order: list[int] = np.lexsort((np.arange(len(logits)), -logits.astype(np.float64)))[:count].tolist()
    return order
