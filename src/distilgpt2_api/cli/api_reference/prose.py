"""The hand-written text of docs/api.md."""

PREFACE = """\
<!-- Generated: `distilgpt2-api api > docs/api.md` -->

# API

One port serves the workshop's protocol, OpenAI's with vLLM's extensions, and that of Hugging Face's Text Generation
Inference (TGI). A running service documents itself at `/docs`, `/redoc` and `/openapi.json`, without a network. No
parameter is accepted and ignored: the service supports it or refuses it by name.
"""

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

Every error says what is wrong and names the parameter. The table of [routes](#routes) shows the error shape of each
route. {default}'s shape is also used on all other paths, and for refused preflights and invalid HTTP. `param` and
`code` are null if there is nothing to report:

```json
{example}
```

{others}

A failing probe returns 503 with its own body, `{{"status": …}}`.

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
