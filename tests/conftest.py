"""Garbage collection in the test process: what the collection of the tests leaves lives for good."""

from __future__ import annotations

import gc

gc.disable()  # collections that scan imported modules would delay the start


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of test items, and the modules
    gc.enable()
