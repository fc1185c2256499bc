"""Writes tests/golden/: small GPT-2 checkpoints and the results of `transformers` for them, in float32.

    .tools/torch/bin/python tests/parity/make_golden.py tests/golden

Needs PyTorch and transformers (`make test-parity` installs them). The files are committed, so that the default suite
compares with `transformers` without installing it; `tests/parity/test_golden.py` computes them again and compares.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

CASES: dict[str, dict[str, Any]] = {
    "plain": {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 97, "n_positions": 64},
    "odd": {
        "n_layer": 3,
        "n_head": 3,
        "n_embd": 63,
        "n_inner": 50,
        "vocab_size": 131,
        "n_positions": 80,
        "activation_function": "relu",
        "layer_norm_epsilon": 1e-3,
    },
    "scaled": {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
        "vocab_size": 65,
        "n_positions": 48,
        "activation_function": "gelu",
        "scale_attn_by_inverse_layer_idx": True,
        "reorder_and_upcast_attn": True,
        "tie_word_embeddings": False,
    },
    "unscaled": {
        "n_layer": 1,
        "n_head": 2,
        "n_embd": 16,
        "vocab_size": 64,
        "n_positions": 40,
        "activation_function": "silu",
        "scale_attn_weights": False,
    },
}
NUM_NEW_TOKENS = 24
NUMS_BEAMS = (2, 4, 5)
LENGTH_PENALTIES = (0.0, 1.0, 2.0, -1.0)
EARLY_STOPPINGS: tuple[Any, ...] = (False, True, "never")


def build_model(case: dict[str, Any]) -> GPT2LMHeadModel:
    torch.manual_seed(7)
    config = GPT2Config(**case, bos_token_id=0, eos_token_id=None, attn_implementation="eager")
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger than GPT-2's own 0.02, so that a wrong term changes the greedy token.
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


@torch.no_grad()
def complete(model: GPT2LMHeadModel, prompt: list[int]) -> dict[str, Any]:
    """Greedy tokens after `prompt`, and the log-probability of every token but the first."""
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=NUM_NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    logprobs = model(output).logits[0, :-1].log_softmax(-1)
    return {
        "prompt": prompt,
        "completion": output[0, len(prompt) :].tolist(),
        "logprobs": logprobs.gather(1, output[0, 1:, None])[:, 0].tolist(),
    }


@torch.no_grad()
def search_beams(model: GPT2LMHeadModel, prompt: list[int], ending: list[int], **options: Any) -> dict[str, Any]:
    """The best sequences after `prompt` and their scores; the tokens of `ending` end a sequence."""
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        do_sample=False,
        eos_token_id=ending or None,
        pad_token_id=-1,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    completions = [[int(token) for token in row[len(prompt) :] if token >= 0] for row in output.sequences]
    scores = output.sequences_scores.tolist()
    return {"prompt": prompt, "ending": ending, **options, "completions": completions, "scores": scores}


def compute_beams(model: GPT2LMHeadModel, prompts: list[list[int]]) -> list[dict[str, Any]]:
    """Every early stopping with every length penalty; the other options alternate.

    What may end a sequence are tokens that the search finds where nothing ends one, so that some end early.
    """
    searches = []
    for number, (length_penalty, early_stopping) in enumerate(itertools.product(LENGTH_PENALTIES, EARLY_STOPPINGS)):
        prompt = prompts[(number + number // 3) % 3]
        num_beams = NUMS_BEAMS[(2 * number + number // 3) % 3]
        options: dict[str, Any] = {
            "num_beams": num_beams,
            "num_return_sequences": 1 if number % 4 == 3 else num_beams,
            "length_penalty": length_penalty,
            "early_stopping": early_stopping,
            "max_new_tokens": (NUM_NEW_TOKENS, 9)[number % 5 == 4],
        }
        without_end = search_beams(model, prompt, [], **options)
        second, last = without_end["completions"][0][1], without_end["completions"][-1][-1]
        searches += [
            without_end,
            search_beams(model, prompt, [last], **options),
            search_beams(model, prompt, sorted({second, last}), min_new_tokens=number % 4 * 2, **options),
        ]
    return searches


def compute(case: dict[str, Any]) -> tuple[GPT2LMHeadModel, dict[str, list[dict[str, Any]]]]:
    """The model, and the content of each file of values."""
    model = build_model(case)
    generator = torch.Generator().manual_seed(11)
    lengths = (1, 7, case["n_positions"] - NUM_NEW_TOKENS)
    prompts = [torch.randint(case["vocab_size"], (length,), generator=generator).tolist() for length in lengths]
    completions = [complete(model, prompt) for prompt in prompts]
    return model, {"golden.json": completions, "beams.json": compute_beams(model, prompts)}


def main() -> None:
    (folder,) = map(Path, sys.argv[1:])
    for name, case in CASES.items():
        model, files = compute(case)
        model.save_pretrained(folder / name)
        (folder / name / "generation_config.json").unlink(missing_ok=True)
        for file_name, values in files.items():
            (folder / name / file_name).write_text(json.dumps(values) + "\n")


if __name__ == "__main__":
    main()
