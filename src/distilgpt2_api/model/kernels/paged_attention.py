"""Turns the stateful graph into the two models that run: the body, on a paged KV cache, and the LM head.

Paged attention: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention".
All tokens of a step are in one flat dimension T, each sequence's tokens contiguous; R is the number of sequences:

    inputs_embeds (T, C) float32: the embeddings of the new tokens
    position_ids (T,) int64                 max_context_len () int32: the longest sequence, new tokens included
    past_lens (R,) int32                    each sequence's tokens in the cache
    subsequence_begins (R + 1,) int32       where each sequence's new tokens begin in T
    block_indices, block_indices_begins     the block tables, joined, and where each begins (R + 1)
    key_cache.i, value_cache.i              the cache of layer i

The LM head is a separate model, so that logits are computed only for the rows that need them, in portions of bounded
size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distilgpt2_api.model.kernels.openvino_runtime import ops, ov, paged_attention_transformation

HIDDEN = "hidden"
"""A graph's result 0: the last layer norm's output, (B, S, C)."""
LOGITS = "logits"
"""A graph's result 1: (B, S, V)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedModels:
    body: ov.Model
    """Inputs as above; result: hidden states (T, 1, C)."""
    head: ov.Model
    """Input: hidden states (N, C); result: logits (N, V) float32."""


def split_and_page(graph: ov.Model, width: int) -> PagedModels:
    """Splits an architecture's graph, which can't be used afterwards."""
    paged_attention_transformation(graph)
    hidden, logits = _result(graph, HIDDEN), _result(graph, LOGITS)
    head_input = ops.parameter([-1, width], ov.Type.f32)
    head_input.set_friendly_name(HIDDEN)
    matmul = logits.input_value(0).get_node()
    matmul.input(0).replace_source_output(head_input.output(0))
    graph.remove_result(logits)
    body = ov.Model([hidden], graph.get_parameters(), "body")
    return PagedModels(body=body, head=ov.Model([logits], [head_input], "head"))


def _result(graph: ov.Model, name: str) -> Any:
    return next(result for result in graph.get_results() if result.get_friendly_name() == name)
