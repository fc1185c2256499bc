"""docs/api.md, generated: no page can promise what the code does not do."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import orjson
from fastapi.routing import APIRoute

from distilgpt2_api.cli.api_reference.parameters import TABLES, ParameterRow, ParameterTable, llama_cpp_rows, rows_of
from distilgpt2_api.core.errors import Distilgpt2ApiError, UnavailableError
from distilgpt2_api.server.app import PROTOCOLS
from distilgpt2_api.server.http.errors import ERROR_MAPPINGS, INTERNAL, ErrorAnswer
from distilgpt2_api.server.protocols.openai.chat import route as chat_route
from distilgpt2_api.server.protocols.openai.completions import route as completions_route
from distilgpt2_api.server.protocols.tgi.errors import TGI_ERRORS
from distilgpt2_api.server.protocols.workshop.addresses import NAMES
from distilgpt2_api.server.schema.reference_apis import LLAMA_CPP
from distilgpt2_api.server.schema.replacements import REPLACEMENTS
from distilgpt2_api.server.schema.validation import replacement_in

PREFACE = """\
<!-- Generated: `distilgpt2-api api > docs/api.md` -->

# API

One port speaks the workshop's own protocol, OpenAI's, vLLM's extras to it, and that of Hugging Face's Text Generation
Inference (TGI). A running service describes itself at `/docs`, `/redoc` and `/openapi.json`, without the network. No
parameter is accepted and ignored: it works, or it is refused by name.
"""

UNLISTED = {
    "/docs": "The API in Swagger UI",
    "/docs/assets/{name}": "What the two pages are made of",
    "/openapi.json": "The API as an OpenAPI document",
    "/redoc": "The API in Redoc",
    "/robots.txt": "Keeps crawlers from following prompts",
    "/ui": "The playground, which `GET /` is to a browser",
    "/ui/assets/{name}": "What it is made of",
}
"""Routes that are not in the OpenAPI document."""

ADDRESSES = """\
## Prompts and addresses

`GET /{{prompt}}` continues its path as a text. Browsers, platforms, monitors, SDKs and scanners ask for paths, too:
such an address is answered with 404, which names the route that was probably meant. The rule:

1. A path below this service's own `/v1`, `/docs`, `/redoc` and `/ui` is an address.
2. Any other path is a prompt if it has white space (`%20`), as sentences have, or a character outside ASCII.
3. What is left, ASCII without white space, is an address if it has a second `/`, has a `_`, begins with a `.`, ends
   like a file (`.php`, `.txt`, `.7z`), or is a name of this table. Otherwise it is a prompt: `/Hello`, `/3.14`,
   `/and%2For`.

{names}

A slash that is sent as `%2F` is text. To continue a text that looks like an address, add a space (`/wp-login.php%20`),
or send it to `POST /generate` or `POST /v1/completions`, which take any text. Only GET asks for a prompt: `POST`,
`PUT`, `PATCH` and `DELETE` to an unknown path are answered with 404.

A slash at the end of any route's path makes no difference, except for the pages (`/docs`, `/redoc`, `/ui`), whose links
are relative. There are no redirects.

A query string may have the keys that the route reads, each of them once; any other key is refused by name. Probes,
`GET /`, `/metrics`, `/robots.txt` and the pages take any query: load balancers and browsers bring keys of their own.
"""

KEYS = """\
## Keys

Where the service has [API keys](security.md), every route but the probes and the [playground](playground.md)'s files
needs one, `HEAD`, `OPTIONS` and unknown paths included: `Authorization: Bearer KEY`, or `x-api-key: KEY`, one of them
and once. Without it the answer is 401, with `WWW-Authenticate: Bearer`. A key in a query is no key.
[Settings](configuration.md) may open `/metrics`, `/docs`, `/redoc` and `/openapi.json` to everybody, or give `/metrics`
a key of its own.
"""

ERRORS = """\
## Errors

Every error says what is wrong, and names the parameter. Each protocol has its own shape; the table of
[routes](#routes) says which. As OpenAI has it, on all other paths, too (unknown ones, refused preflights, requests that
are no valid HTTP):

```json
{"error": {"message": "max_tokens: …", "type": "invalid_request_error", "param": "max_tokens", "code": null}}
```

`param` and `code` are null where there is nothing to say. As TGI has it, with its statuses, on `POST /`, and with any
method on `/generate`, `/generate_stream` and `/info`:

```json
{"error": "parameters.max_new_tokens: …", "error_type": "validation"}
```

A probe that is not well answers 503 with its `{"status": …}`.

The shape is the same before and after the first byte: a stream that fails ends with an event that has the error's body.
Other answers are sent once they are whole; a file's content that can't be read to its end is cut off with the
connection.

`x-should-retry` tells clients whether the same request may pass later; with 429 and 503 comes `Retry-After` (and
`retry-after-ms`), at most 120 seconds. Every answer has an `x-request-id`: the request's own, if it sent a sane one.
"""

STREAMS = """\
## Streams

With `stream` an answer is `text/event-stream`: events of one `data: ` line each, a blank line after each. A line that
begins with a colon is a comment: one comes after every 15 quiet seconds, to keep the connection alive. The status goes
out with the first token, or with the first comment where a request waits that long for its turn. Whatever fails before
it has a status of its own. A failure after it (the deadline of a request that waited, an engine that fails, a service
that ends) is an event with the error's body, and the end: no `[DONE]`, no last event with the whole text. A client that
hangs up, streamed or not, ends the work.

`/v1/completions`: an event for each piece of a choice; `finish_reason` is null in all but the last.

```
{completion_example}
```

`/v1/chat/completions`: a choice's first event has its role, the last one its `finish_reason`.

```
{chat_example}
```

Both end with `data: [DONE]`. With `stream_options.include_usage` the event before it has the usage, and no choices.
`/generate_stream`, and `POST /` with `stream`: an event for each token, the whole text in the last one; no `[DONE]`.
"""

PARAMETERS = """\
## Parameters

The tables are read off the schemas that requests are checked against. Null means the default wherever a parameter has
one. Some bounds are narrower by [settings](configuration.md): `n` and `best_of` (`max_n`), the numbers of
log-probabilities (`max_logprobs`), `stop` (`max_stop_sequences`). What is refused may still be there with null, or with
a value that asks for nothing, where one is named; every route takes those of every protocol.
"""

INTRODUCTIONS = {
    "/v1/completions": "OpenAI's completions, with vLLM's extras.",
    "/v1/chat/completions": "OpenAI's chat, with vLLM's extras, for models with a chat template; for others the answer "
    "is 400 and says what to do. Templates come with a model (`chat_template.jinja`, or `chat_template` in "
    "`tokenizer_config.json`) or from the setting [`chat_template`](configuration.md), never with a request. A message "
    "has `role` (`system`, `developer`, `user`, `assistant`), `content` (a text, or text parts, which are joined by "
    "line ends) and, where the template has a use for it, `name`. `developer` becomes `system` where the template does "
    "not know it. Images, sounds and tools are refused. The answer ends with the end of text or with `stop`; without a "
    "length it may fill the context.",
    "/generate": "TGI's parameters, below `parameters`, beside `inputs`: for `POST /`, `/generate` and "
    "`/generate_stream`.",
    "/v1/score": "A protocol of our own: how likely the model finds given texts.",
}


def api_page(routes: Iterable[object]) -> str:
    """Markdown, the same on every machine. `routes`: the application's."""
    streams = STREAMS.format(
        completion_example=completions_route.STREAM_EXAMPLE.strip(), chat_example=chat_route.STREAM_EXAMPLE.strip()
    )
    parts = [
        PREFACE,
        _routes_section(routes),
        ADDRESSES.format(names=_names_table()),
        KEYS,
        ERRORS,
        _error_table(),
        streams,
        PARAMETERS,
    ]
    parts += [_parameters_section(table) for table in TABLES]
    parts += [_llama_cpp_section(), _other_names_section()]
    return "\n".join(parts)


def _routes_section(routes: Iterable[object]) -> str:
    rows = []
    for route in routes:
        assert isinstance(route, APIRoute)
        methods = sorted(set(route.methods or ()) - {"HEAD"})
        if methods:
            purpose = route.summary or UNLISTED.get(route.path) or _first_line(route.endpoint)
            protocol = str(route.tags[0]) if route.tags else "Documentation"
            errors = PROTOCOLS.find(methods[0], route.path).errors.name + "'s"
            rows.append((f"`{' '.join(methods)} {route.path_format}`", protocol, errors, purpose))
    note = "`HEAD` works where `GET` computes nothing."
    return f"## Routes\n\n{_table(('route', 'protocol', 'errors', 'purpose'), rows)}\n\n{note}\n"


def _names_table() -> str:
    rows = [(asked_by, " ".join(f"`{name}`" for name in names.split())) for asked_by, names in NAMES.items()]
    return _table(("asked for by", "names; `*` is any text, `[0-9]` a digit"), rows)


def _error_table() -> str:
    rows = [_error_row(INTERNAL, "The service made a mistake; its log has the details.", "no")]
    for error, kind in ERROR_MAPPINGS.items():
        if error in {Distilgpt2ApiError, UnavailableError}:
            continue  # What happens is a kind of theirs.
        answer = ErrorAnswer(status=kind.status, message="", type=kind.type, code=kind.code)
        rows.append(_error_row(answer, _first_line(error), "yes, after `Retry-After`" if kind.is_retryable else "no"))
    header = ("status", "`type`", "`code`", "TGI's status", "TGI's `error_type`", "when", "try again?")
    return (
        _table(header, sorted(rows))
        + "\n\n404 also answers an unknown URL, and 405, with `Allow`, a method that a URL does not have. A "
        "[malformed request](operations.md#malformed-requests) gets 400, 431, 501 or 505 in OpenAI's shape, and the "
        "connection ends.\n"
    )


def _error_row(answer: ErrorAnswer, when: str, retry: str) -> tuple[str, ...]:
    code = "null" if answer.code is None else f"`{answer.code}`"
    tgi_status, tgi_type = TGI_ERRORS.status(answer), orjson.loads(TGI_ERRORS.body(answer))["error_type"]
    return (f"{answer.status:d}", f"`{answer.type}`", code, f"{tgi_status:d}", f"`{tgi_type}`", when, retry)


def _parameters_section(table: ParameterTable) -> str:
    rows = list(rows_of(table))
    supported = [row for row in rows if row.is_supported]
    refused = [row for row in rows if not row.is_supported]
    parts = [f"### {table.path}", INTRODUCTIONS[table.path], _supported_table(supported)]
    if refused:
        listed = [(f"`{row.name}`", ", ".join(row.known_from), row.note) for row in refused]
        parts += ["Refused:", _table(("parameter", "known from", ""), listed)]
    if table.reference_apis:
        parts.append("\n".join(f"{api.name}: {api.source}." for api in table.reference_apis))
    return "\n\n".join(parts) + "\n"


def _supported_table(rows: Iterable[ParameterRow]) -> str:
    return _table(
        ("parameter", "known from", "values", "default", "meaning"),
        [(f"`{row.name}`", ", ".join(row.known_from), row.values, row.default, row.note) for row in rows],
    )


def _llama_cpp_section() -> str:
    rows = [
        (f"`{row.name}`", "yes" if row.is_supported else "refused", row.values if row.is_supported else row.note)
        for row in llama_cpp_rows()
    ]
    intro = (
        "There is no `/completion` here: its clients use `/v1/completions`, which llama.cpp's server has too. What its "
        "own parameters are there:"
    )
    table = _table(("parameter", "/v1/completions", ""), rows)
    return f"### llama.cpp's parameters\n\n{intro}\n\n{table}\n\n{LLAMA_CPP.name}: {LLAMA_CPP.source}.\n"


def _other_names_section() -> str:
    tables = [table for table in TABLES if table.reference_apis]
    rows = [(f"`{name}`", *(_name_in(table, name) for table in tables)) for name in sorted(REPLACEMENTS)]
    intro = "What other programs call a parameter, and what to send here. Errors about such a name say so, too."
    return f"### Other names\n\n{intro}\n\n{_table(('name', *(table.path for table in tables)), rows)}\n"


def _name_in(table: ParameterTable, name: str) -> str:
    return "the same" if table.model.supports(name) else replacement_in(table.model, name) or ""


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]
