"""A service's sampling defaults: names, types and bounds are those of the register."""

from __future__ import annotations

import pytest

from distilgpt2_api.core.params import PLAIN_PARAMETERS
from distilgpt2_api.core.sampling_defaults import NO_DEFAULTS, SamplingDefaults


def test_every_plain_parameter_can_have_a_default() -> None:
    values = {name: entry.neutral for name, entry in PLAIN_PARAMETERS.items()} | {"max_new_tokens": 9}
    defaults = SamplingDefaults.parse(values)
    assert defaults.as_dict() == values
    assert {type(value) for value in defaults.params.values()} == {int, float, bool}


def test_a_whole_number_may_stand_for_a_float() -> None:
    temperature = SamplingDefaults.parse({"temperature": 1}).params["temperature"]
    assert (type(temperature), temperature) == (float, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"temprature": 1},
            "'temprature' is none of the parameters that can have a default: max_new_tokens, min_tokens, ",
        ),
        ({"seed": 1}, "'seed' is none of the parameters"),
        ({"temperature": 2.5}, "temperature must be a number from 0 to 2"),
        ({"temperature": float("nan")}, "temperature must be a number from 0 to 2"),
        ({"temperature": True}, "temperature must be a number from 0 to 2"),
        ({"temperature": "1"}, "temperature must be a number from 0 to 2"),
        ({"typical_p": 0}, "typical_p must be a number above 0 to 1"),
        ({"top_k": 1.0}, "top_k must be a whole number from 0 to 2.14748e+09"),
        ({"ignore_eos": 1}, "ignore_eos must be true or false"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number from 1 to 2147483648"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number from 1 to 2147483648"),
    ],
)
def test_an_invalid_default_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        SamplingDefaults.parse(values)


def test_one_set_of_defaults_takes_precedence_over_another() -> None:
    first = SamplingDefaults.parse({"top_k": 5, "max_new_tokens": 9})
    second = SamplingDefaults.parse({"top_k": 6, "top_p": 0.5, "max_new_tokens": 8})
    assert first.over(second).as_dict() == {"top_k": 5, "top_p": 0.5, "max_new_tokens": 9}
    assert NO_DEFAULTS.over(second) == second
    assert first.over(second).only({"top_p"}).as_dict() == {"top_p": 0.5, "max_new_tokens": 9}


def test_the_default_length_fits_the_context() -> None:
    assert [SamplingDefaults(max_tokens=9).limit(16, num_left) for num_left in (20, 5, 0)] == [9, 5, 1]
    assert NO_DEFAULTS.limit(16, 5) == 16
