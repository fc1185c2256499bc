"""docs/samplers.md has every sampler, in the order in which they apply."""

from __future__ import annotations

import re
from pathlib import Path

from distilgpt2_api.core.params import SAMPLERS
from distilgpt2_api.model.kernels.draws import sampling_draws

PAGE = Path(__file__).parents[2] / "docs" / "samplers.md"


def test_the_page_has_the_samplers_in_their_order() -> None:
    rows = re.findall(r"^\| (`\w+`) \| (`.*?`) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {sampler.strip("`"): tuple(re.findall(r"`(\w+)`", names)) for sampler, names in rows}
    breakers = ("dry_sequence_breakers",)  # a parameter of texts
    expected = {sampler: names + breakers * (sampler == "dry") for sampler, names in SAMPLERS.items()}
    assert list(listed.items()) == list(expected.items())


def test_the_kernels_parameters_stand_in_the_same_order() -> None:
    """A draw's fields, which `native/model.h` applies in their order."""
    fields = sampling_draws([], [], [], vocab_size=1).dtype.names or ()
    order = [name for names in SAMPLERS.values() for name in names if name in fields]
    assert [name for name in fields if name in order] == order
