"""docs/api.md: the text of page.md, with tables from routes, errors and schemas."""

import inspect
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import orjson
from fastapi.routing import APIRoute
from jinja2 import StrictUndefined, Template

from distilgpt2_api.cli.api_reference.parameters import TABLES, ParameterTable, rows_of
from distilgpt2_api.core.errors import Distilgpt2ApiError, InvalidRequestError, UnavailableError
from distilgpt2_api.server.app import PROTOCOLS
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import ERROR_MAPPINGS, INTERNAL, ErrorAnswer, describe_error
from distilgpt2_api.server.protocols.openai.chat import route as chat_route
from distilgpt2_api.server.protocols.openai.completions import route as completions_route
from distilgpt2_api.server.protocols.workshop.addresses import NAMES
from distilgpt2_api.server.schema.reference_apis import ReferenceApi
from distilgpt2_api.server.schema.replacements import REPLACEMENTS
from distilgpt2_api.server.schema.validation import replacement_in

UNLISTED = {
    "/docs": "The API in Swagger UI",
    "/docs/assets/{name}": "Files of the two pages",
    "/openapi.json": "The API as an OpenAPI document",
    "/redoc": "The API in Redoc",
    "/robots.txt": "Keeps crawlers from following prompts",
    "/ui": "The playground; `GET /` shows it to browsers",
    "/ui/assets/{name}": "Files of the playground",
}
"""Routes that are not in the OpenAPI document."""

DEFAULT_SHAPE = PROTOCOLS.default.errors
OTHER_SHAPES = list(
    {protocol.errors.name: protocol.errors for protocol in PROTOCOLS if protocol.errors is not DEFAULT_SHAPE}.values()
)
EXAMPLE_ERROR = describe_error(InvalidRequestError("max_tokens: …", param="max_tokens"))


def api_page(routes: Iterable[object]) -> str:
    """Fills page.md. The result is the same on every machine. `routes` are the application's."""
    text = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    page: str = Template(text, undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True).render(
        routes=_routes_table(routes),
        names=_names_table(),
        default_shape=DEFAULT_SHAPE,
        other_shapes=[(shape, _paths_of(shape)) for shape in OTHER_SHAPES],
        error_body=lambda shape: shape.body(EXAMPLE_ERROR).decode(),
        errors=_error_table(),
        completion_example=completions_route.STREAM_EXAMPLE.strip(),
        chat_example=chat_route.STREAM_EXAMPLE.strip(),
        parameters={table.path: _parameters_section(table) for table in TABLES}.__getitem__,
        other_names=_other_names_table(),
    )
    return page


def _routes_table(routes: Iterable[object]) -> str:
    rows = []
    for route in routes:
        assert isinstance(route, APIRoute)
        methods = sorted(set(route.methods or ()) - {"HEAD"})
        if methods:
            purpose = route.summary or UNLISTED.get(route.path) or _first_line(route.endpoint)
            protocol = str(route.tags[0]) if route.tags else "Documentation"
            errors = PROTOCOLS.find(methods[0], route.path).errors.name + "'s"
            rows.append((f"`{' '.join(methods)} {route.path_format}`", protocol, errors, purpose))
    return _table(("route", "protocol", "errors", "purpose"), rows)


def _paths_of(shape: ErrorShape) -> list[str]:
    protocols = [protocol for protocol in PROTOCOLS if protocol.errors is shape]
    return sorted({path for one in protocols for path in (*one.paths, *(f"/{tree}/…" for tree in one.trees))})


def _names_table() -> str:
    rows = [(asked_by, " ".join(f"`{name}`" for name in names.split())) for asked_by, names in NAMES.items()]
    return _table(("requested by", "names; `*` is any text, `[0-9]` a digit"), rows)


def _error_table() -> str:
    rows = [_error_row(INTERNAL, "An internal error; the log has the details.", "no")]
    for error, mapping in ERROR_MAPPINGS.items():
        if error in {Distilgpt2ApiError, UnavailableError}:
            continue  # abstract: only their subclasses are raised
        answer = ErrorAnswer(status=mapping.status, message="", type=mapping.type, code=mapping.code)
        rows.append(
            _error_row(answer, _first_line(error), "yes, after `Retry-After`" if mapping.is_retryable else "no")
        )
    others = [name for shape in OTHER_SHAPES for name in (f"{shape.name}'s status", *_kinds(shape, INTERNAL))]
    header = ("status", "`type`", "`code`", *others, "when", "retry?")
    return _table(header, sorted(rows))


def _error_row(answer: ErrorAnswer, when: str, retry: str) -> tuple[str, ...]:
    code = "null" if answer.code is None else f"`{answer.code}`"
    others = [
        cell
        for shape in OTHER_SHAPES
        for cell in (f"{shape.status(answer):d}", *(f"`{kind}`" for kind in _kinds(shape, answer).values()))
    ]
    return (f"{answer.status:d}", f"`{answer.type}`", code, *others, when, retry)


def _kinds(shape: ErrorShape, answer: ErrorAnswer) -> dict[str, str]:
    """The fields by which a shape classifies an error, by column title: its texts, except the message."""
    body = orjson.loads(shape.body(replace(answer, message="")))
    return {f"{shape.name}'s `{name}`": text for name, text in body.items() if isinstance(text, str) and text}


def _parameters_section(table: ParameterTable) -> str:
    rows = list(rows_of(table))
    supported = [row for row in rows if row.is_supported]
    refused = [row for row in rows if not row.is_supported]
    supported_table = _table(
        ("parameter", "known from", "values", "default", "meaning"),
        [(f"`{row.name}`", ", ".join(row.known_from), row.values, row.default, row.note) for row in supported],
    )
    parts = [supported_table]
    if refused:
        listed = [(f"`{row.name}`", ", ".join(row.known_from), row.note) for row in refused]
        parts += ["Refused:", _table(("parameter", "known from", "note"), listed)]
    if table.reference_apis:
        parts.append("\n".join(map(_source, table.reference_apis)))
    return "\n\n".join(parts)


def _source(api: ReferenceApi) -> str:
    return f"{api.name}: {api.source}."


def _other_names_table() -> str:
    tables = [table for table in TABLES if table.reference_apis]
    rows = [(f"`{name}`", *(_name_in(table, name) for table in tables)) for name in sorted(REPLACEMENTS)]
    titles = [f"{table.path}, `{table.prefix}`" if table.prefix else table.path for table in tables]
    return _table(("name", *titles), rows)


def _name_in(table: ParameterTable, name: str) -> str:
    return "the same" if table.model.supports(name) else replacement_in(table.model, name) or ""


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]
