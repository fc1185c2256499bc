"""Bodies that are on their way together, and bodies of many small parts."""

from __future__ import annotations

import pytest

from distilgpt2_api.core.errors import InvalidRequestError, OverloadedError
from distilgpt2_api.server.body import MAX_STRUCTURE, parse_json_object
from distilgpt2_api.server.uploads import Uploads


def test_all_uploads_together_are_bounded_and_room_comes_back() -> None:
    uploads = Uploads(100)
    uploads.add(60)
    uploads.add(40)
    with pytest.raises(OverloadedError):
        uploads.add(1)
    uploads.remove(1)
    uploads.remove(60)
    uploads.add(50)
    assert uploads.num_bytes == 90


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [' + b"[]," * MAX_STRUCTURE + b"0]}",
        b'{"a": [' + b"{}," * MAX_STRUCTURE + b"0]}",
        b"{" + b",".join(b'"%d": 0' % number for number in range(MAX_STRUCTURE + 1)) + b"}",
    ],
)
def test_a_body_of_very_many_parts_is_refused_before_they_are_made(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=f"lists, objects and members, all together; at most {MAX_STRUCTURE}"):
        parse_json_object(body)


def test_what_looks_like_parts_inside_of_a_text_is_text() -> None:
    text = r"[{\":" * (MAX_STRUCTURE // 2)
    assert parse_json_object(b'{"prompt": "' + text.encode() + b'"}').keys() == {"prompt"}
    ids = parse_json_object(b'{"prompt": [' + b"1," * 200_000 + b"2]}")["prompt"]
    assert isinstance(ids, list)
    assert len(ids) == 200_001
