"""The OpenAPI document is true: requests generated from it, valid or invalid, get documented answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.run_schemathesis import run_schemathesis
from tests.e2e.conftest import Service


@pytest.mark.timeout(600)
def test_they_get_documented_answers(small_server: Service, tmp_path: Path) -> None:
    """Statuses, bodies, headers and events are documented. Valid requests are accepted, invalid ones refused."""
    assert run_schemathesis(small_server, tmp_path, max_examples=12, seed=1) > 0
