"""Which custom ids a file has had, however many."""

from __future__ import annotations

from distilgpt2_api.batch.lines import DUPLICATE_ID, LineError
from distilgpt2_api.batch.temporary_table import TemporaryTable


class CustomIds(TemporaryTable):
    """Custom id to the line that has it."""

    def add(self, custom_id: str, *, number: int) -> None:
        """Raises LineError where an earlier line has it."""
        if self.insert(custom_id, number):
            return
        raise LineError(
            f"custom_id: line {self.find(custom_id)} has the same, {custom_id[:100]!r}",
            number=number,
            code=DUPLICATE_ID,
            param="custom_id",
            custom_id=custom_id,
        )
