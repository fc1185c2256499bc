"""`/docs`, `/redoc` and `/openapi.json`, from the package's own files: no CDN."""

import asyncio
import gzip
from functools import partial
from http import HTTPStatus
from importlib.resources import files

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.server.http.routing.paths import DOCS_ASSETS_PATH, OPENAPI_PATH
from distilgpt2_api.server.schema.query import checked_router

ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "document.js": "text/javascript",
    "swagger-start.js": "text/javascript",
    "redoc.standalone.js": "text/javascript",
    "redoc-start.js": "text/javascript",
    "redoc.css": "text/css",
}
COMPRESSED = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "redoc.standalone.js"})
"""Stored compressed in the package, and sent compressed."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "  # inline styles of the pages
    "worker-src blob:; "  # Redoc's search
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Only the package's own scripts, and no requests to other origins."""
FOLDER = files("distilgpt2_api.server.pages") / "static" / "docs"


router = checked_router()


async def read_page(page: str) -> Response:
    headers = {"content-security-policy": CONTENT_SECURITY_POLICY}
    return Response((FOLDER / page).read_bytes(), media_type="text/html", headers=headers)


for path, page in (("/docs", "swagger.html"), ("/redoc", "redoc.html")):
    router.add_api_route(path, partial(read_page, page), include_in_schema=False, name=page, response_model=None)


@router.get(f"{DOCS_ASSETS_PATH}/{{name}}", include_in_schema=False)
async def read_asset(http: Request, name: str) -> Response:
    if name not in ASSETS:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    headers = {"cache-control": "public, max-age=3600", "vary": "accept-encoding"}
    if name not in COMPRESSED:
        return Response((FOLDER / name).read_bytes(), media_type=ASSETS[name], headers=headers)
    content = (FOLDER / f"{name}.gz").read_bytes()
    if "gzip" in http.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
    else:
        content = gzip.decompress(content)
    return Response(content, media_type=ASSETS[name], headers=headers)


@router.get(OPENAPI_PATH, include_in_schema=False)
async def read_openapi(http: Request) -> Response:
    # The first time takes some tenths of a second: streams go on meanwhile.
    document = http.app.openapi_schema or await asyncio.to_thread(http.app.openapi)
    if root_path := http.scope.get("root_path"):
        document = document | {"servers": [{"url": root_path}]}
    return Response(orjson.dumps(document), media_type="application/json")
