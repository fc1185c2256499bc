"""What keeps the process's memory from growing with time, beside the plugin's own options (`kernel_options.py`)."""

from __future__ import annotations

import ctypes
import os

M_MMAP_THRESHOLD = -3
"""mallopt(3)"""
LARGE_BYTES = 1 << 20
"""More than a step's arrays of NumPy's take, less than most of the kernels' buffers."""


def release_free_memory() -> None:
    """Gives back to the system what was freed in the C heap: after work that needed much. Only in glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def bound_kernel_memory() -> None:
    """Gives large buffers back to the system when they are freed, and keeps no kernel that is in no one's use.

    Both are properties of the process, so they are set once, before the first model is compiled.

    The kernels' buffers grow with the longest step so far. In the C heap each would leave a hole behind, too small for
    the next: 88 MB after steps of 193 to 224 tokens. On their own pages they leave nothing; glibc does that by itself
    only until the first such buffer is freed. Elsewhere than in glibc nothing is done.

    oneDNN would remember the last 1024 kernels beside the plugin's cache of them, and makes one for each number of
    rows: half a megabyte each. It reads how many at its first, and from the environment only.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, LARGE_BYTES)
    os.putenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")
