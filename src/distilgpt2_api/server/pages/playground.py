"""`/ui`, and `/` for browsers: a page for trying the service, from the package's own files, without a build step."""

import hashlib
import re
from http import HTTPStatus
from importlib.resources import files
from pathlib import PurePath

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.core.params import PLAIN_PARAMETERS
from distilgpt2_api.server.http.routing.paths import PLAYGROUND_ASSETS_PATH, PLAYGROUND_PATH
from distilgpt2_api.server.schema.query import checked_router

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Only the package's own files, and no text that becomes markup, because a model may write anything."""
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}
FOLDER = files("distilgpt2_api.server.pages") / "static" / "playground"
FILLER = re.compile(rb"^ +|^/\*.*\*/$", re.MULTILINE)
"""Indentation and comments of the page and the style sheet, which mean the same without them."""
PAGE = FILLER.sub(b"", (FOLDER / "index.html").read_bytes())
REGISTER = {
    name: {
        "min": entry.minimum,
        "max": entry.maximum,
        "step": 1 if entry.type is int else 0.01,
        "neutral": entry.neutral,
        "help": entry.description.replace("`", ""),
    }
    for name, entry in PLAIN_PARAMETERS.items()
}
"""The plain sampling parameters, for `parameters.js`, which offers all of them."""
COMMENT = re.compile(rb"^ *(?://|/?\*).*|^ +", re.MULTILINE)
"""A line of a script that is a comment, or the indentation of another. Only readers of the source need them, so
browsers get the rest of the line. No text of a script has lines with indentation."""
SCRIPTS = {file.name: COMMENT.sub(b"", file.read_bytes()) for file in FOLDER.iterdir() if file.name.endswith(".js")}
SPACE = re.compile(rb"(?<=[:;,{]) | (?=[{}])|\n")
"""Spaces and line ends of the style sheet that separate nothing. None of its texts has such a space."""
STYLES = {
    file.name: SPACE.sub(b"", FILLER.sub(b"", file.read_bytes()))
    for file in FOLDER.iterdir()
    if file.name.endswith(".css")
}
ASSETS = SCRIPTS | STYLES | {"register.js": b"export const REGISTER = " + orjson.dumps(REGISTER) + b";\n"}


router = checked_router()


@router.get(PLAYGROUND_PATH, include_in_schema=False, response_model=None)
async def read_page(http: Request) -> Response:
    headers = {"content-security-policy": CONTENT_SECURITY_POLICY, "vary": "accept"}
    return _answer(http, PAGE, "text/html", headers)


@router.get(f"{PLAYGROUND_ASSETS_PATH}/{{name}}", include_in_schema=False)
async def read_asset(http: Request, name: str) -> Response:
    if name not in ASSETS:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return _answer(http, ASSETS[name], MEDIA_TYPES[PurePath(name).suffix], {})


def _answer(http: Request, content: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """An answer that browsers cache but revalidate each time, so that page and scripts have the same version.

    A 304 has the headers of a 200, because the browser overwrites its cached headers with them.
    """
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = headers | {"cache-control": "no-cache", "etag": etag}
    if etag in http.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
