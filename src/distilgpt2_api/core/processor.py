"""Whether this processor has the instructions that NumPy's package is compiled for.

Without them the import of NumPy ends the process by a signal (SIGILL), and a server would start one worker after the
other. So the check comes before that import. It asks for the level x86-64-v2, NumPy's least since 2.4:
https://numpy.org/doc/stable/reference/simd/build-options.html
"""

import platform
from pathlib import Path

from distilgpt2_api.core.errors import UnsupportedProcessorError

CPU_INFO = Path("/proc/cpuinfo")
"""Linux's list of what each processor has. macOS runs on no older processor."""
X86_64_V2 = ("cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3")
"""The level's instructions beyond x86-64's first, in Linux's words (`pni` is SSE3)."""


def is_supported() -> bool:
    return not _find_missing()


def check_processor() -> None:
    """Raises UnsupportedProcessorError."""
    if missing := _find_missing():
        raise UnsupportedProcessorError(
            f"this processor lacks {', '.join(missing)}: NumPy needs x86-64-v2 (Intel since 2008, AMD since 2011);"
            " a virtual machine may hide them: choose another processor type there than kvm64 or qemu64"
        )


def _find_missing() -> list[str]:
    """Empty also if the list can't be read, or is another processor's."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if platform.machine() == "x86_64" else []
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), X86_64_V2)
    return sorted({*X86_64_V2}.difference(flags))
