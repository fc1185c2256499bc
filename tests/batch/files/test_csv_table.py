"""CSV tables: the request in an input row, and the content of an output row."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.lines import Answer, LineError


def rows_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))


def asked(open_input: Any, content: str) -> list[Any]:
    source = open_input(content.encode(), name="in.csv")
    return [json.loads(source.format.parse(record).body) for record in source.records()]


def refused(open_input: Any, content: bytes) -> list[LineError]:
    source = open_input(content, name="in.CSV", max_line_bytes=200)
    errors = []
    for record in source.records():
        with pytest.raises(LineError) as caught:
            source.format.parse(record)
        errors.append(caught.value)
    return errors


def test_columns_named_like_a_parameter_are_parameters(open_input: Any) -> None:
    """The prompt is always text. Other cells are JSON if valid; an empty one sets nothing."""
    content = 'title,prompt,max_tokens,stop,seed\nx,5,7,"[""a"", ""b""]",\ny,"a\nb",,END,"""7"""\nz,,1.5,NaN,null\n'
    assert asked(open_input, content) == [
        {"prompt": "5", "max_tokens": 7, "stop": ["a", "b"]},
        {"prompt": "a\nb", "stop": "END", "seed": "7"},
        {"prompt": "", "max_tokens": 1.5, "stop": "NaN", "seed": None},
    ]
    assert asked(open_input, "prompt,seed\na,123456789012345678901\n") == [
        {"prompt": "a", "seed": 123456789012345678901}
    ]


def test_the_output_has_all_columns_and_the_completion(open_input: Any) -> None:
    """Texts keep their line ends and quotation marks."""
    source = open_input(b'name,prompt\r\n"a ""b""","x,\r\ny"\r\n', name="in.csv")
    (record,) = source.records()
    body = {
        "choices": [{"text": 'one\r"two"\n, thrée', "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    line = source.format.parse(record)
    answer = Answer(status_code=200, request_id="r", body=json.dumps(body).encode())
    row = source.format.write(record, line, answer)

    assert (line.number, line.custom_id, line.url) == (2, "line-2", "/v1/completions")
    assert rows_of(source.format.header + row) == [
        ["batch_id", "name", "prompt", "completion", "finish_reason", "prompt_tokens", "completion_tokens"],
        [f"batch_req_2_{record.digest}", 'a "b"', "x,\r\ny", 'one\r"two"\n, thrée', "length", "3", "4"],
    ]
    assert row.startswith(source.format.beginning)
    assert source.format.read_id(row.rstrip()) == f"batch_req_2_{record.digest}"


def test_an_invalid_row_is_refused_with_its_reason(open_input: Any) -> None:
    content = b'prompt,title\na\n"b" c,d\n\xff,e\n' + b"f" * 200 + b',g\nh,"i'
    errors = refused(open_input, content)
    assert [(error.number, error.code) for error in errors] == [
        (2, "invalid_csv_row"),
        (3, "invalid_csv_row"),
        (4, "invalid_csv_row"),
        (5, "line_too_long"),
        (6, "invalid_csv_row"),
    ]
    assert [str(error).partition(":")[0] for error in errors] == [
        "the row has 1 cells, the header 2",
        "not a row of CSV",
        "not UTF-8",
        "the line is too long",
        "not a row of CSV",
    ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "is empty"),
        (b"title,seed\n", "no column 'prompt'; it has: title, seed$"),
        (b"prompt;seed\n", r"no column 'prompt'; it has: prompt;seed \(cells are separated by commas\)$"),
        (b"prompt,a,a\n", "the column 'a' occurs twice"),
        (b"prompt,completion\n", "the column 'completion' is one that the output adds"),
        (b"batch_id,prompt\n", "the column 'batch_id' is one that the output adds"),
        (b"prompt,n\n", "column 'n' is not supported: a row has one completion"),
        (b"prompt,stream\n", "column 'stream' is not supported: a row has one completion"),
        (b"prompt,\xff\n", "header: not UTF-8"),
    ],
)
def test_a_table_with_invalid_columns_is_refused(header: bytes, message: str, open_input: Any) -> None:
    with pytest.raises(BatchFileError, match=message):
        open_input(header, name="in.csv")


def test_a_cell_may_be_as_long_as_its_row(open_input: Any) -> None:
    """The csv module's default limit is 131072 characters."""
    text = "x" * 300_000
    source = open_input(f"prompt\n{text}\n".encode(), name="in.csv", max_line_bytes=400_000)
    (record,) = source.records()
    assert json.loads(source.format.parse(record).body) == {"prompt": text}
