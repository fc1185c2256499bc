"""From a model folder to logits and tokens: files, weights, the graph, the KV cache, the runner, the sampler."""

import sys

# `import openvino` reports each import to Intel over the network, unasked, and a process that can't reach it waits for
# that at its end. Without this module OpenVINO takes its own stub instead.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be imported (import system)
