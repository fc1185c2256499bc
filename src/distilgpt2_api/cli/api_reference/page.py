"""docs/api.md, generated from routes, errors and schemas, so that the page and the code agree."""

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

One port serves the workshop's protocol, OpenAI's with vLLM's extensions, and that of Hugging Face's Text Generation
Inference (TGI). A running service documents itself at `/docs`, `/redoc` and `/openapi.json`, without a network. No
parameter is accepted and ignored: the service supports it or refuses it by name.
"""

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

ADDRESSES = """\
## Prompts and addresses

`GET /{{prompt}}` completes its path as a prompt. But browsers, platforms, monitors, SDKs and scanners also request
paths. Such an address gets 404, and the error names the route that was probably meant. These rules tell prompts from
addresses:

1. A path below this service's own `/v1`, `/docs`, `/redoc` or `/ui` is an address.
2. Any other path is a prompt if it contains white space (`%20`) or a character outside ASCII.
3. Any other path (ASCII without white space) is an address if it has a second `/` or a `_`, starts with `.`, ends like
   a file (`.php`, `.txt`, `.7z`), or is in the table below. Otherwise it is a prompt: `/Hello`, `/3.14`, `/and%2For`.

{names}

A slash sent as `%2F` is text. To complete a text that looks like an address, add a space (`/wp-login.php%20`), or send
it to `POST /generate` or `POST /v1/completions`, which take any text. Only `GET` takes a prompt from the path: `POST`,
`PUT`, `PATCH` and `DELETE` to an unknown path get 404.

A trailing slash makes no difference, except for the pages (`/docs`, `/redoc`, `/ui`), because their links are relative.
There are no redirects.

A query string may contain each key that the route reads once; any other key is refused by name. Probes, `GET /`,
`/metrics`, `/robots.txt` and the pages accept any query, because load balancers and browsers add keys of their own.
"""

KEYS = """\
## Keys

If the service has [API keys](security.md), every route except the probes and the [playground](playground.md)'s files
requires one; this includes `HEAD`, `OPTIONS` and unknown paths. Send either `Authorization: Bearer KEY` or
`x-api-key: KEY`, once. Without a valid key the response is 401 with `WWW-Authenticate: Bearer`. Keys in the query
string are not accepted. [Settings](configuration.md) can make `/metrics`, `/docs`, `/redoc` and `/openapi.json` public,
or give `/metrics` its own key.
"""

ERRORS = """\
## Errors

Every error says what is wrong and names the parameter. Each protocol has its own error shape; the table of
[routes](#routes) shows which. OpenAI's shape is also used on all other paths, for example unknown paths, refused
preflights and invalid HTTP:

```json
{"error": {"message": "max_tokens: …", "type": "invalid_request_error", "param": "max_tokens", "code": null}}
```

`param` and `code` are null if there is nothing to report. `POST /`, and every method on `/generate`, `/generate_stream`
and `/info`, use TGI's shape and statuses:

```json
{"error": "parameters.max_new_tokens: …", "error_type": "validation"}
```

A failing probe returns 503 with its own body, `{"status": …}`.

The shape is the same before and after the first byte: a stream that fails ends with an event that contains the error's
body. Other responses are sent when they are complete. If a file's content can't be read to its end, the connection is
closed.

`x-should-retry` tells clients whether the same request may succeed later. 429 and 503 come with `Retry-After` (and
`retry-after-ms`), at most 120 seconds. Every response has an `x-request-id`: the request's own if it is valid, else a
new one.
"""

STREAMS = """\
## Streams

With `stream` the response is `text/event-stream`: each event is one `data: ` line, followed by a blank line. Lines that
start with a colon are comments; one is sent after every 15 quiet seconds to keep the connection alive. The status is
sent with the first token, or with the first comment if the request waits that long. An error before that has a status
of its own. An error after it (a timeout, an engine failure, a shutdown) is an event with the error's body, and the
stream ends there: without `[DONE]`, and without a last event that has the whole text. If the client disconnects,
streamed or not, its work is cancelled.

`/v1/completions` sends an event for each piece of a choice; `finish_reason` is null in all but the last.

```
{completion_example}
```

`/v1/chat/completions` sends the role in a choice's first event, and `finish_reason` in the last.

```
{chat_example}
```

Both end with `data: [DONE]`. With `stream_options.include_usage` the event before it has the usage, and no choices.
`/generate_stream`, and `POST /` with `stream`, send an event for each token, and the whole text in the last one; there
is no `[DONE]`.
"""

PARAMETERS = """\
## Parameters

These tables are generated from the schemas that validate requests. Null means the default for every parameter that has
one. [Settings](configuration.md) can narrow some bounds: `n` and `best_of` (`max_n`), the numbers of log-probabilities
(`max_logprobs`), `stop` (`max_stop_sequences`). A refused parameter is still accepted with null, or with a value that
has no effect if the table names one; every route accepts those of every protocol.
"""

INTRODUCTIONS = {
    "/v1/completions": "OpenAI's completions, with vLLM's extensions.",
    "/v1/chat/completions": "OpenAI's chat, with vLLM's extensions, for models with a chat template. For other models "
    "the response is 400 and says what to do. A template comes with the model (`chat_template.jinja`, or "
    "`chat_template` in `tokenizer_config.json`) or from the setting [`chat_template`](configuration.md), never with a "
    "request. A message has `role` (`system`, `developer`, `user`, `assistant`), `content` (a text, or text parts, "
    "which are joined by newlines) and, if the template uses it, `name`. If the template does not know the role "
    "`developer`, it becomes `system`. Images, audio and tools are refused. The response ends at the end-of-text token "
    "or at `stop`; without a maximum length it may fill the context.",
    "/generate": "TGI's parameters, in the object `parameters` beside `inputs`, for `POST /`, `/generate` and "
    "`/generate_stream`.",
    "/v1/score": "This service's own protocol: how likely the model finds given texts.",
}


def api_page(routes: Iterable[object]) -> str:
    """The page in Markdown, the same on every machine. `routes` are the application's."""
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
    header = ("status", "`type`", "`code`", "TGI's status", "TGI's `error_type`", "when", "retry?")
    return (
        _table(header, sorted(rows))
        + "\n\nAn unknown URL also gets 404; a method that a URL does not have gets 405 with `Allow`. A "
        "[malformed request](operations.md#malformed-requests) gets 400, 431, 501 or 505 in OpenAI's shape, and the "
        "connection is closed.\n"
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
        "This service has no `/completion`: use `/v1/completions`, which llama.cpp's server has too. It takes these of "
        "llama.cpp's own parameters:"
    )
    table = _table(("parameter", "/v1/completions", ""), rows)
    return f"### llama.cpp's parameters\n\n{intro}\n\n{table}\n\n{LLAMA_CPP.name}: {LLAMA_CPP.source}.\n"


def _other_names_section() -> str:
    tables = [table for table in TABLES if table.reference_apis]
    rows = [(f"`{name}`", *(_name_in(table, name) for table in tables)) for name in sorted(REPLACEMENTS)]
    intro = "Names of parameters in other programs, and what to send here. Errors about these names say the same."
    return f"### Other names\n\n{intro}\n\n{_table(('name', *(table.path for table in tables)), rows)}\n"


def _name_in(table: ParameterTable, name: str) -> str:
    return "the same" if table.model.supports(name) else replacement_in(table.model, name) or ""


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]
