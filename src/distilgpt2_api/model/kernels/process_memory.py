"""Process-wide options that keep memory from growing over time, beside the plugin's own (`options.py`)."""

from __future__ import annotations

import ctypes
import os

M_MMAP_THRESHOLD = -3
"""mallopt(3)"""
LARGE_BYTES = 1 << 20
"""More than a step's NumPy arrays take, less than most of the kernels' buffers."""


def release_free_memory() -> None:
    """Returns freed memory of the C heap to the system, after work that needed much. Only with glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def bound_kernel_memory() -> None:
    """Makes freed large buffers return to the system, and disables oneDNN's own kernel cache.

    Both are properties of the process, so they are set once, before the first model is compiled.

    The kernels' buffers grow with the longest step so far. In the C heap each old buffer would leave a hole that is too
    small for the next: 88 MB after steps of 193 to 224 tokens. With their own pages they leave none; glibc does that
    by default only until the first such buffer is freed. Without glibc nothing is done.

    oneDNN would cache the last 1024 kernels in addition to the plugin's cache: one for each number of rows, half a
    megabyte each. It reads the limit only from the environment, when it compiles its first kernel.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, LARGE_BYTES)
    os.putenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")
