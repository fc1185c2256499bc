"""Memory that the process has freed: glibc keeps much of it, other C libraries keep less."""

import ctypes

M_TRIM_THRESHOLD = -1
"""glibc's `mallopt(3)`."""
TRIM_THRESHOLD_BYTES = 128 << 10
"""glibc's own default."""


def keep_little_free_memory() -> None:
    """Return large freed blocks to the system at once, as glibc does until the first one is freed.

    From then on each thread would keep up to 64 MiB. A service allocates large blocks when it grows, not in each step.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def release_free_memory() -> None:
    """Return all freed memory to the system. Tokenizing a long text, or reading a tokenizer, leaves much of it."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
