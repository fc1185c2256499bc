"""Finds custom ids that occur twice, in files of any length."""

from distilgpt2_api.batch.lines import DUPLICATE_ID, LineError
from distilgpt2_api.batch.temporary_table import TemporaryTable


class CustomIds(TemporaryTable):
    """Maps each custom id to the number of its line."""

    def add(self, custom_id: str, *, number: int) -> None:
        """Raises LineError if an earlier line has the same id."""
        if self.insert(custom_id, number):
            return
        raise LineError(
            f"custom_id: {custom_id[:100]!r} is already used by line {self.find(custom_id)}",
            number=number,
            code=DUPLICATE_ID,
            param="custom_id",
            custom_id=custom_id,
        )
