"""Fixtures: the live servers of the end-to-end tests."""

from __future__ import annotations

from tests.contract.conftest import small_server
from tests.e2e.conftest import launch, model_folder

__all__ = ["launch", "model_folder", "small_server"]
