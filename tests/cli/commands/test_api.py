from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_page_is_up_to_date(invoke: Any) -> None:
    """To fix it: distilgpt2-api api > docs/api.md."""
    assert invoke("api").output == PAGE.read_text(encoding="utf-8")
