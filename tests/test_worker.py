"""Gunicorn's worker, as far as it is ours."""

from __future__ import annotations

import pytest
import structlog

from distilgpt2_api.worker import warn_of_strangers


@pytest.mark.parametrize(
    ("addresses", "named"),
    [
        ([("0.0.0.0", 8000)], ["0.0.0.0"]),
        ([("127.0.0.1", 8000), ("::", 8000, 0, 0)], ["::"]),
        ([("192.0.2.1", 8000)], ["192.0.2.1"]),
        ([("127.0.0.1", 8000), ("::1", 8000, 0, 0), "/run/socket"], None),
    ],
)
def test_who_listens_to_strangers_without_keys_is_told_so_in_one_line(
    addresses: list[object], named: list[str] | None
) -> None:
    with structlog.testing.capture_logs() as lines:
        warn_of_strangers(addresses)
    assert [(line["log_level"], line["addresses"]) for line in lines] == ([("warning", named)] if named else [])
