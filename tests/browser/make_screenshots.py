"""Takes the screenshots in docs/images for `make screenshots`. Its name keeps it out of the test suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

IMAGES = Path(__file__).parents[2] / "docs" / "images"
ANSWERS = [{"temperature": 0.6, "seed": 3}, {"temperature": 1.1, "seed": 8}]
"""The settings of two answers to compare."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_picture(page: Any, start_storyteller: Callable[..., Any], scheme: str) -> None:
    server = start_storyteller(precision="int8", num_threads=2)
    page.emulate(scheme=scheme, width=1280, height=940)
    page.open(server)
    page.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    page.set(max_tokens=82)
    for settings in ANSWERS:
        page.set(**settings)
        page.generate()
        page.click("#answers .pin")
    page.run("scrollTo({ top: 0, behavior: 'instant' })")
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 640, "y": 30})
    page.run("document.querySelectorAll('#pinned .token')[9].click(); document.activeElement.blur()")
    page.see(lambda: page.run("return document.getAnimations().length === 0"), "it is all there")
    IMAGES.mkdir(exist_ok=True)
    page.driver.save_screenshot(str(IMAGES / f"playground-{scheme}.png"))
