"""The only door to OpenVINO: of its package the runtime, and neither its reports to its makers nor its converter."""

import sys
from importlib import import_module
from typing import Any

CONVERTER = "openvino.tools.ovc"

# `import openvino` reports each import to Intel over the network, unasked, and a process that can't reach it waits for
# that at its end. Without this module OpenVINO takes its own stub instead.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be imported (import system)
# It also imports its converter of models, with frontends and more of NumPy: a third of its time. Where that is missing
# it does without; here whoever asks for it gets it then.
_is_first = "openvino" not in sys.modules
if _is_first:
    sys.modules[CONVERTER] = None  # type: ignore[assignment]  # the same
import openvino as ov  # noqa: E402 - after what it is not to import
from openvino import opset13 as ops  # noqa: E402 - the same
from openvino._offline_transformations import paged_attention_transformation  # noqa: E402 - the same
from openvino.op.util import Variable, VariableInfo  # noqa: E402 - the same


def _import_late(name: str) -> Any:
    """What the package would have had from its converter (PEP 562)."""
    if name == "convert_model":
        return import_module(CONVERTER).convert_model
    raise AttributeError(f"module 'openvino' has no attribute {name!r}")


if _is_first:
    del sys.modules[CONVERTER]
    ov.__getattr__ = _import_late

__all__ = ["Variable", "VariableInfo", "ops", "ov", "paged_attention_transformation"]
