"""The native library: found beside this module, checked, and its functions typed (`native/step.h`)."""

import ctypes
import platform
import sys
from functools import cache
from pathlib import Path

from distilgpt2_api.core.errors import UnsupportedProcessorError
from distilgpt2_api.model.kernels.structures import Model, Step

INTERFACE = 5
"""`INTERFACE` of `native/step.h`: changes whenever a structure, a function or a layout does."""
LIBRARY = Path(__file__).with_name("libkernels.dylib" if sys.platform == "darwin" else "libkernels.so")
WAY_OUT = "install the package again (from a checkout: make run, or python native/build.py)"


@cache
def load_library() -> ctypes.CDLL:
    """The package's library.

    Raises UnsupportedProcessorError if it is missing, of another platform, or of another version than this code.
    """
    where = f"{LIBRARY}: the native kernels"
    machine = f"{platform.system()} on {platform.machine()}"
    if not LIBRARY.exists():
        raise UnsupportedProcessorError(f"{where} are missing for {machine}: {WAY_OUT}")
    try:
        library = ctypes.CDLL(str(LIBRARY), use_errno=True)
        library.engine_interface.restype = ctypes.c_int
        interface = library.engine_interface()
    except (OSError, AttributeError) as error:
        # The loader says "no such file" if the file is another processor's.
        raise UnsupportedProcessorError(f"{where} can't be loaded by {machine} ({error}): {WAY_OUT}") from error
    if interface != INTERFACE:
        raise UnsupportedProcessorError(
            f"{where} have interface {interface}, this version of distilgpt2-api needs {INTERFACE}: {WAY_OUT}"
        )
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.engine_open.restype = pointer
    library.engine_open.argtypes = (ctypes.POINTER(Model), ctypes.c_char_p, number)
    library.engine_close.restype = None
    library.engine_close.argtypes = (pointer,)
    library.engine_targets.restype = ctypes.c_char_p
    library.engine_block_bytes.restype = ctypes.c_int64
    library.engine_block_bytes.argtypes = (ctypes.POINTER(Model),)
    library.engine_step.restype = number
    library.engine_step.argtypes = (pointer, ctypes.POINTER(Step))
    library.engine_logits_stride.restype = number
    library.engine_logits_stride.argtypes = (ctypes.POINTER(Model),)
    library.engine_draw.restype = number
    library.engine_draw.argtypes = (pointer, pointer, pointer, number, pointer, number)
    return library


def find_targets() -> tuple[str, ...]:
    """Instruction sets that this processor runs and the library has kernels for, the best first."""
    names: bytes = load_library().engine_targets()
    return tuple(names.decode().split())


def choose_target(name: str) -> str:
    """`name`, or the best target if that is empty. Raises UnsupportedProcessorError if this processor lacks it."""
    targets = find_targets()
    if not name:
        return targets[0]
    if name not in targets:
        raise UnsupportedProcessorError(
            f"kernels {name!r}: this processor runs {', '.join(targets)}; leave DISTILGPT2_KERNELS empty for the best"
        )
    return name
