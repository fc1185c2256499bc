"""CSV tables (RFC 4180): a prompt in each row; the output repeats the row and adds the completion."""

import csv
import io
import json
from collections.abc import Collection, Sequence

import orjson

from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.files.formats import content_of
from distilgpt2_api.batch.files.line_ids import line_id
from distilgpt2_api.batch.files.records import InputRecord
from distilgpt2_api.batch.lines import Answer, InputLine, LineError, write_body

PROMPT = "prompt"
COMPLETIONS_URL = "/v1/completions"
ID = "batch_id"
ADDED = ("completion", "finish_reason", "prompt_tokens", "completion_tokens")
NOT_IN_ROWS = ("n", "stream")
"""Parameters that don't give exactly one completion for a row."""
INVALID_ROW = "invalid_csv_row"


class CsvTable:
    """A Format. Columns with the name of a parameter are parameters: JSON if the cell is valid JSON, else text.

    All columns are copied to the output. An empty cell sets no parameter.
    """

    has_quotes = True
    beginning = b"batch_req_"

    def __init__(self, header: InputRecord, *, parameters: Collection[str]) -> None:
        """Raises BatchFileError for columns that are missing, duplicate or reserved."""
        # The csv module's own limit on cells is lower than ours on rows.
        csv.field_size_limit(max(csv.field_size_limit(), 1 << 31))
        try:
            self.columns = tuple(_read_row(header))
        except LineError as error:
            raise BatchFileError(f"the table's header: {error}") from None
        self._check(parameters)
        self.parameters = tuple(name for name in self.columns if name in parameters and name != PROMPT)
        self.header = _write_row((ID, *self.columns, *ADDED))

    def parse(self, record: InputRecord) -> InputLine:
        cells = _read_row(record)
        if len(cells) != len(self.columns):
            raise LineError(
                f"the row has {len(cells)} cells, the header {len(self.columns)}",
                number=record.number,
                code=INVALID_ROW,
            )
        row = dict(zip(self.columns, cells, strict=True))
        body: dict[str, object] = {PROMPT: row[PROMPT]}
        body |= {name: _read_cell(row[name]) for name in self.parameters if row[name]}
        return InputLine(
            number=record.number, custom_id=f"line-{record.number}", url=COMPLETIONS_URL, body=write_body(body)
        )

    def write(self, record: InputRecord, line: InputLine, answer: Answer) -> bytes:  # noqa: ARG002 - a row has no custom id
        body = orjson.loads(answer.body)
        choice, usage = body["choices"][0], body["usage"]
        added = (choice["text"], choice["finish_reason"], usage["prompt_tokens"], usage["completion_tokens"])
        return _write_row((line_id(record), *_read_row(record), *added))

    def read_id(self, content: bytes) -> object:
        try:
            return next(csv.reader([content.decode()], strict=True))[0]
        except csv.Error as error:
            raise ValueError(str(error)) from None

    def _check(self, parameters: Collection[str]) -> None:
        columns = self.columns
        if PROMPT not in columns:
            hint = " (cells are separated by commas)" if len(columns) == 1 and not columns[0].isidentifier() else ""
            raise BatchFileError(f"the table has no column {PROMPT!r}; it has: {', '.join(columns)[:200]}{hint}")
        for name in columns:
            if columns.count(name) > 1:
                raise BatchFileError(f"the column {name!r} occurs twice")
            if name in (ID, *ADDED):
                raise BatchFileError(f"the column {name!r} is one that the output adds: rename it")
            if name in parameters and name in NOT_IN_ROWS:
                raise BatchFileError(f"the column {name!r} is not supported: a row has one completion; use JSON lines")


def _read_row(record: InputRecord) -> list[str]:
    content = content_of(record)
    try:
        return next(csv.reader([content.decode()], strict=True))
    except UnicodeDecodeError as error:
        reason = f"not UTF-8: {error.reason} at byte {error.start}"
    except csv.Error as error:
        reason = f"not a row of CSV: {error}"
    raise LineError(reason, number=record.number, code=INVALID_ROW)


def _read_cell(text: str) -> object:
    """The cell as JSON if it is valid (`0.5`, `true`, `["a", "b"]`, `"5"`), else its text."""
    try:
        orjson.loads(text)  # is strict; the standard library keeps integers of any size
        return json.loads(text)
    except ValueError:
        return text


def _write_row(cells: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()
