"""The stream on which long commands show a bar."""

import io
import sys
from typing import TextIO


def progress_stream() -> TextIO:
    """Stderr if it is a terminal. Elsewhere a bar's label would be a line among a table's rows, so it is dropped."""
    return sys.stderr if sys.stderr.isatty() else io.StringIO()
