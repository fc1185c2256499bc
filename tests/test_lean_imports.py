"""The server imported as a worker imports it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import BaseModel

from distilgpt2_api.lean_imports import lean_imports
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER

PRINT_DOCUMENT = "from distilgpt2_api.api import app\nimport json; print(json.dumps(app.openapi()))"
LEAN = "from distilgpt2_api.lean_imports import lean_imports\nwith lean_imports(): import distilgpt2_api.api\n"


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """The OpenAPI document of an application that was imported as usual, and of one with lean imports."""
    environment = os.environ | {"DISTILGPT2_MODEL": str(BUNDLED_FOLDER)}
    return [
        subprocess.run(
            [sys.executable, "-c", imports + PRINT_DOCUMENT],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for imports in ("", LEAN)
    ]


def test_the_document_is_the_same(documents: list[str]) -> None:
    usual, lean = documents

    assert len(usual) > 100_000
    assert lean == usual


REQUEST_QUERIES = """
import asyncio, sys, warnings
import httpx
warnings.simplefilter("error")

async def request() -> None:
    transport = httpx.ASGITransport(distilgpt2_api.api.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/Once?max_new_tokens=3", "/v1/usage?start_date=2026-01-01"):
            assert (await client.get(path)).status_code in (404, 503)  # nothing is loaded

asyncio.run(request())
"""


@pytest.mark.reported("a reader: the first request with a query wrote a warning of pydantic's between the log's lines")
def test_queries_are_built_before_the_first_request() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LEAN + REQUEST_QUERIES],
        env=os.environ | {"DISTILGPT2_MODEL": str(BUNDLED_FOLDER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr


def test_a_model_defined_meanwhile_works_and_later_ones_are_built_at_once() -> None:
    with lean_imports():

        class Inner(BaseModel):
            number: int

        class Outer(BaseModel):
            inner: Inner | None = None

        Outer.model_rebuild()
        is_built_early = Outer.__pydantic_complete__

    class Later(BaseModel):
        inner: Inner

    assert not is_built_early
    assert Outer.model_validate({"inner": {"number": "3"}}).inner == Inner(number=3)
    assert Later.__pydantic_complete__
    assert "defer_build" not in Later.model_config


def test_the_first_version_of_pydantic_is_hidden_only_meanwhile() -> None:
    program = (
        "from distilgpt2_api.lean_imports import lean_imports\n"
        "with lean_imports():\n"
        "    try: from pydantic import v1\n"
        "    except ImportError: print('hidden')\n"
        "from pydantic import v1; print(v1.__name__)"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert result.stdout.split() == ["hidden", "pydantic.v1"]
