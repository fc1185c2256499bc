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
from benchmarks.peers.gpt2_graph import LOGITS, build_graph
from numpy.typing import NDArray
from openvino import opset13 as ops

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.model.architectures.registry import read_model_config, tensor_specs
from distilgpt2_api.model.weights.checkpoint import open_checkpoint
from distilgpt2_api.model.weights.prepared import quantize_rows, scale_name

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
    weights = read_weights(folder, config)
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


def read_weights(folder: Path, config: ModelConfig) -> dict[str, NDArray[Any]]:
    """The same int8 as ours, as `build_graph` wants it."""
    checkpoint = open_checkpoint(folder, config)
    weights: dict[str, NDArray[Any]] = {}
    for name, spec in tensor_specs(config).items():
        values = checkpoint.tensor(name)
        if spec.is_matrix:
            weight, scale = quantize_rows(values.T if spec.is_transposed else values)
            weights |= {name: weight, scale_name(name): scale[:, None]}
        else:
            weights[name] = values
    return weights


def _parameter(name: str) -> Any:
    node = ops.parameter([-1, -1], ov.Type.i64)
    node.set_friendly_name(name)
    node.output(0).get_tensor().set_names({name})
    return node


def _gather(table: Any, indices: Any) -> Any:
    return ops.gather(ops.constant(table), indices, ops.constant(np.int64(0)))


if __name__ == "__main__":
    main()
