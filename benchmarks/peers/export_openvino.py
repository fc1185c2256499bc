"""Writes a model folder as the stateful OpenVINO graph that OpenVINO GenAI reads: our graph and int8 weights, including
the token embedding. Needs no download and no PyTorch.

    python -m benchmarks.peers.export_openvino FOLDER TARGET

It writes no tokenizer: the peer gets token ids, as all others do.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from distilgpt2_api.core.config import Precision
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.kernels.gpt2_graph import build_graph
from distilgpt2_api.model.kernels.paged_attention import LOGITS
from distilgpt2_api.model.weights.compiled_cache import load_weights
from distilgpt2_api.model.weights.prepared import scale_name

EMBEDDING = "wte.weight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    args.target.mkdir(parents=True, exist_ok=True)
    export(args.folder, args.target)


def export(folder: Path, target: Path) -> None:
    """Write the folder, the graph last: if the graph exists, the folder is complete."""
    config = read_model_config(folder)
    weights = load_weights(folder, config, precision=Precision.INT8, cache_folder=None, report=print).tensors
    graph = build_graph(config, weights)
    embeds = next(node for node in graph.get_parameters() if node.get_friendly_name() == "inputs_embeds")
    input_ids, attention_mask = (_parameter(name) for name in ("input_ids", "attention_mask"))
    rows = ops.convert(_gather(weights[EMBEDDING], input_ids), "f32")
    if (scales := weights.get(scale_name(EMBEDDING))) is not None:
        rows = ops.multiply(rows, _gather(scales, input_ids))
    for consumer in embeds.output(0).get_target_inputs():
        consumer.replace_source_output(rows.output(0))
    logits = next(result for result in graph.get_results() if result.get_friendly_name() == LOGITS)
    others = [node for node in graph.get_parameters() if node.get_friendly_name() != "inputs_embeds"]
    whole = ov.Model([logits], graph.get_sinks(), [input_ids, attention_mask, *others], "gpt2")
    description = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(description))
    end_of_text = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    (target / "generation_config.json").write_text(json.dumps(end_of_text))
    ov.save_model(whole, target / "openvino_model.xml", compress_to_fp16=False)


def _parameter(name: str) -> Any:
    node = ops.parameter([-1, -1], ov.Type.i64)
    node.set_friendly_name(name)
    node.output(0).get_tensor().set_names({name})
    return node


def _gather(table: Any, indices: Any) -> Any:
    return ops.gather(ops.constant(table), indices, ops.constant(np.int64(0)))


if __name__ == "__main__":
    main()
