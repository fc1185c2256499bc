"""JSON objects: a key may occur once, at any depth."""

from __future__ import annotations

import json

import pytest

from distilgpt2_api.core.json_members import DuplicateKeyError, unique_members


def test_an_object_keeps_its_members_in_order() -> None:
    value = json.loads('{"b": {"a": 1}, "a": [{"a": 2}]}', object_pairs_hook=unique_members)

    assert list(value.items()) == [("b", {"a": 1}), ("a", [{"a": 2}])]


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "b": 2, "a": 1}', '[{"c": {"b": 1, "b": 1}}]'])
def test_the_first_key_that_occurs_again_is_named(text: str) -> None:
    with pytest.raises(DuplicateKeyError, match=r"^duplicate key 'b'$") as caught:
        json.loads(text, object_pairs_hook=unique_members)

    assert caught.value.key == "b"


def test_a_long_key_is_shortened_in_the_error() -> None:
    with pytest.raises(DuplicateKeyError) as caught:
        unique_members([("k" * 5000, 1)] * 2)

    assert caught.value.key == "k" * 100
    assert len(str(caught.value)) < 150
