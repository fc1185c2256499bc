"""The only module that imports OpenVINO: the runtime, without its telemetry and without its converter."""

import sys
from importlib import import_module
from typing import Any

CONVERTER = "openvino.tools.ovc"

# `import openvino` reports each import to Intel over the network without asking, and a process that can't reach Intel
# waits for it at exit. Without this module OpenVINO uses its own stub.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes an import fail (import system)
# It also imports its model converter, with frontends and more of NumPy, which takes a third of the import time.
# OpenVINO works without it; here it is imported when it is used.
_is_first = "openvino" not in sys.modules
if _is_first:
    sys.modules[CONVERTER] = None  # type: ignore[assignment]  # the same
import openvino as ov  # noqa: E402 - after the modules that it must not import
from openvino import opset13 as ops  # noqa: E402 - the same
from openvino._offline_transformations import paged_attention_transformation  # noqa: E402 - the same
from openvino.op.util import Variable, VariableInfo  # noqa: E402 - the same


def _import_late(name: str) -> Any:
    """Attributes of the package that come from its converter (PEP 562)."""
    if name == "convert_model":
        return import_module(CONVERTER).convert_model
    raise AttributeError(f"module 'openvino' has no attribute {name!r}")


if _is_first:
    del sys.modules[CONVERTER]
    ov.__getattr__ = _import_late

__all__ = ["Variable", "VariableInfo", "ops", "ov", "paged_attention_transformation"]
