"""Splits a batch's input into lines, and checks them all before any is answered."""

from collections.abc import Iterable, Iterator

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.lines import TOO_LONG, UNKNOWN_MODEL, InputLine, LineError, parse_line
from distilgpt2_api.batch.store.objects import InputError
from distilgpt2_api.batch.store.ports import CheckModel
from distilgpt2_api.core.errors import InvalidRequestError

MAX_ERRORS = 100
"""The most errors that a batch reports; the rest are likely of the same kind."""


def split_lines(chunks: Iterable[bytes], *, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yields number, from 1, and content of each line that is not blank. Raises LineError if one is too long."""
    number = 0
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            _check_length(line, number, max_line_bytes)
            if line.strip():
                yield number, line
        _check_length(rest, number + 1, max_line_bytes)
    if rest.strip():
        yield number + 1, rest


def check_lines(
    lines: Iterable[tuple[int, bytes]], *, endpoint: str, max_lines: int, check_model: CheckModel
) -> tuple[int, tuple[InputError, ...]]:
    """Returns the number of lines and their errors. If there are errors, the number is meaningless.

    As with OpenAI, only the line's own fields and the model are checked here. The route checks the rest of the body
    later.
    """
    errors: list[InputError] = []
    num_lines = 0
    with CustomIds() as custom_ids:
        try:
            for number, content in lines:
                num_lines += 1
                if num_lines > max_lines:
                    message = f"the input has more than {max_lines} lines, the limit for a batch"
                    errors.append(InputError(code="too_many_lines", message=message))
                    break
                try:
                    line = parse_line(content, number=number, urls=(endpoint,))
                    custom_ids.add(line.custom_id, number=number)
                    _check_model(line, check_model)
                except LineError as error:
                    errors.append(_described(error))
                    if len(errors) == MAX_ERRORS:
                        break
        except LineError as error:  # too long: the following lines can't be found
            errors.append(_described(error))
    if not num_lines and not errors:
        errors.append(InputError(code="empty_file", message="the input file has no lines"))
    return num_lines, tuple(errors)


def _check_length(line: bytes, number: int, max_line_bytes: int) -> None:
    if len(line) > max_line_bytes:
        raise LineError(f"the line is longer than {max_line_bytes} bytes", number=number, code=TOO_LONG)


def _check_model(line: InputLine, check_model: CheckModel) -> None:
    if line.model is None:
        return
    try:
        check_model(line.model)
    except InvalidRequestError as error:
        raise LineError(
            str(error), number=line.number, code=UNKNOWN_MODEL, param="body.model", custom_id=line.custom_id
        ) from error


def _described(error: LineError) -> InputError:
    return InputError(code=error.code, message=str(error), line=error.number, param=error.param)
