from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_every_setting_is_shown_with_its_value_and_its_source(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILGPT2_PRECISION", "f32")
    rows = [line.split(maxsplit=1) for line in invoke("config").output.splitlines()]
    assert [name for name, _ in rows] == ["setting", *Settings.model_fields]
    shown = dict(rows)
    assert shown["precision"].split() == ["f32", "environment"]
    assert shown["port"].split() == ["8000", "default"]


def test_auto_is_shown_with_its_value(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    num_threads = Settings().engine_config().num_threads
    assert f"auto ({num_threads})" in invoke("config").output
    monkeypatch.setenv("DISTILGPT2_NUM_THREADS", "3")
    assert "auto (3)" not in invoke("config").output


def test_the_page_is_up_to_date(invoke: Any) -> None:
    """To fix it: distilgpt2-api config --markdown > docs/configuration.md."""
    assert invoke("config", "--markdown").output == PAGE.read_text(encoding="utf-8")


def test_the_page_does_not_depend_on_the_machine(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = invoke("config", "--markdown").output
    monkeypatch.setenv("DISTILGPT2_PORT", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert invoke("config", "--markdown").output == page
