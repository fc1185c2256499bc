"""Train "storyteller", the demo model in the package.

It has GPT-2's architecture (pre-norm, learned positions, tied embeddings) and its own byte-level BPE. Its float16
checkpoint fits the package's limit of 8 MB. The result is an ordinary GPT-2 checkpoint: any program that reads
`config.json`, `model.safetensors` and `tokenizer.json` can load it.

    make train CORPUS=../shared/corpus          # or: python training/train_storyteller.py --help

The corpus (public-domain stories; the model card lists the books) is not part of the repository: `stories.txt` for
training and `stories-heldout.txt` to measure bits per byte, with one paragraph per line and a line `<|endoftext|>`
after each story.

Optimiser: Muon for the matrices of the blocks (Jordan et al. 2024, "Muon: an optimizer for hidden layers"), AdamW for
embeddings, norms and biases; linear warm-up, constant, then linear decay to zero (Hägele et al. 2024).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional as F

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All parameters of the result, except the corpus and the machine's floating-point arithmetic."""

    seed: int = 1729
    vocab_size: int = 3072
    num_positions: int = 512
    num_layers: int = 5
    num_heads: int = 7
    width: int = 224
    batch_size: int = 8
    num_steps: int = 3500
    warmup_steps: int = 100
    decay_fraction: float = 0.29
    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 0.003
    weight_decay: float = 0.02
    gradient_clip: float = 1.0


class Block(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        width = recipe.width
        self.num_heads = recipe.num_heads
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.attn_c_proj = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.mlp_c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time_, width = x.shape
        heads = (batch, time_, self.num_heads, width // self.num_heads)
        q, k, v = self.c_attn(self.ln_1(x)).split(width, dim=2)
        q, k, v = (part.view(heads).transpose(1, 2) for part in (q, k, v))  # (B, H, T, D)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_c_proj(y.transpose(1, 2).reshape(batch, time_, width))
        return x + self.mlp_c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.wte = nn.Embedding(recipe.vocab_size, recipe.width)
        self.wpe = nn.Embedding(recipe.num_positions, recipe.width)
        self.blocks = nn.ModuleList(Block(recipe) for _ in range(recipe.num_layers))
        self.ln_f = nn.LayerNorm(recipe.width)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                # GPT-2's 0.02, times 1/sqrt(2 L) for matrices that write into the residual stream.
                residual = name.endswith("c_proj.weight")
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * recipe.num_layers) if residual else 1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)  # (B, T, V)


def read_stories(path: Path) -> list[str]:
    stories = path.read_text(encoding="utf-8").split(END_OF_TEXT)
    return [story.strip() for story in stories if story.strip()]


def train_tokenizer(stories: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, stories: list[str]) -> Tensor:
    """One stream, int64: `<|endoftext|>` story `<|endoftext|>` story … `<|endoftext|>`."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = [end]
    for encoding in tokenizer.encode_batch(stories):
        ids += [*encoding.ids, end]
    return torch.tensor(ids, dtype=torch.int64)


def batches(stream: Tensor, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches; every epoch cuts the stream at another offset and shuffles the windows."""
    generator = torch.Generator().manual_seed(recipe.seed)
    length = recipe.num_positions
    while True:
        offset = int(torch.randint(length, (1,), generator=generator))
        num_windows = (len(stream) - 1 - offset) // length
        order = torch.randperm(num_windows, generator=generator)
        for first in range(0, num_windows - recipe.batch_size + 1, recipe.batch_size):
            starts = offset + length * order[first : first + recipe.batch_size]
            windows = torch.stack([stream[start : start + length + 1] for start in starts.tolist()])
            yield windows[:, :-1], windows[:, 1:]


@torch.no_grad()
def bits_per_byte(
    model: nn.Module, stream: Tensor, num_bytes: int, recipe: Recipe, *, stride: int | None = None
) -> float:
    """Score every token of `stream` except the first once, with at least `n_positions - stride` tokens of context
    (after the first window). Bits of all tokens, including end marks, divided by the bytes of the stories."""
    length = recipe.num_positions
    total = 0.0
    scored_to = 1
    for start in range(0, len(stream) - 1, stride):
        window = stream[start : start + length + 1]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(window[None, :-1])[0].float()
        losses = F.cross_entropy(logits, window[1:], reduction="none")
        total += losses[scored_to - start - 1 :].sum().item()
        scored_to = start + len(window)
        if scored_to >= len(stream):
            break
    return total / math.log(2) / num_bytes


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    decay_steps = int(recipe.num_steps * recipe.decay_fraction)
    return min(1.0, (step + 1) / recipe.warmup_steps, (recipe.num_steps - step) / decay_steps)


def export(model: GPT2, tokenizer: Tokenizer, recipe: Recipe, folder: Path) -> None:
    """Write a GPT-2 checkpoint: float16, `Conv1D` layout (`[in, out]`), no `lm_head` because it is tied."""
    tensors = {"wte.weight": model.wte.weight, "wpe.weight": model.wpe.weight}
    tensors |= {"ln_f.weight": model.ln_f.weight, "ln_f.bias": model.ln_f.bias}
    for index, block in enumerate(model.blocks):
        for name, parameter in block.named_parameters():
            module, _, kind = name.rpartition(".")
            module = {
                "c_attn": "attn.c_attn",
                "attn_c_proj": "attn.c_proj",
                "c_fc": "mlp.c_fc",
                "mlp_c_proj": "mlp.c_proj",
            }.get(module, module)
            tensors[f"h.{index}.{module}.{kind}"] = parameter.T if parameter.ndim == 2 else parameter
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # with the library's own mode a container's user could not read it
    end = tokenizer.token_to_id(END_OF_TEXT)
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "bos_token_id": end,
        "eos_token_id": end,
        "layer_norm_epsilon": 1e-05,
        "n_ctx": recipe.num_positions,
        "n_embd": recipe.width,
        "n_head": recipe.num_heads,
        "n_inner": None,
        "n_layer": recipe.num_layers,
        "n_positions": recipe.num_positions,
        "torch_dtype": "float16",
        "vocab_size": recipe.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def sample(model: nn.Module, tokenizer: Tokenizer, recipe: Recipe, prompt: str, num_tokens: int = 120) -> str:
    generator = torch.Generator().manual_seed(recipe.seed)
    ids = tokenizer.encode(prompt).ids
    with torch.no_grad():
        for _ in range(num_tokens):
            logits = model(torch.tensor([ids[-recipe.num_positions :]]))[0, -1] / 0.8
            top = logits.topk(50)
            ids.append(int(top.indices[torch.multinomial(top.values.softmax(-1), 1, generator=generator)]))
    return tokenizer.decode(ids)


class Log:
    """Writes every line to the terminal and, as JSON, to the log file in the repository."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w")
        self._started = time.monotonic()

    def write(self, **line: object) -> None:
        text = json.dumps(line | {"seconds": round(time.monotonic() - self._started, 1)})
        print(text, flush=True)
        self._file.write(text + "\n")
        self._file.flush()


def build_optimizers(model: GPT2, recipe: Recipe) -> list[torch.optim.Optimizer]:
    hidden = [parameter for parameter in model.blocks.parameters() if parameter.ndim == 2]
    rest = [parameter for parameter in model.parameters() if not any(parameter is one for one in hidden)]
    return [
        torch.optim.Muon(
            hidden, lr=recipe.muon_learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="original"
        ),
        torch.optim.AdamW(rest, lr=recipe.adam_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(model: GPT2, stream: Tensor, recipe: Recipe, log: Log, *, is_compiled: bool) -> Iterator[int]:
    """Train; yield the number of finished steps, every 500 and at the end."""

    def loss_of(ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    compute_loss = torch.compile(loss_of) if is_compiled else loss_of
    optimizers = build_optimizers(model, recipe)
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, recipe))
        for optimizer in optimizers
    ]
    sum_of_losses = 0.0
    for step, (ids, targets) in enumerate(islice(batches(stream, recipe), recipe.num_steps), start=1):
        loss = compute_loss(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
        sum_of_losses += loss.item()
        if step % 50 == 0:
            log.write(step=step, loss=round(sum_of_losses / 50, 4))
            sum_of_losses = 0.0
        if step % 500 == 0 or step == recipe.num_steps:
            yield step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with stories.txt and stories-heldout.txt")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--log", type=Path, required=True, help="file for the log, JSON lines")
    parser.add_argument("--steps", type=int, default=Recipe().num_steps, help="use fewer for a test run")
    parser.add_argument("--no-compile", action="store_true", help="don't use torch.compile, which needs a C++ compiler")
    arguments = parser.parse_args()
    recipe = Recipe(num_steps=arguments.steps)
    log = Log(arguments.log)

    torch.manual_seed(recipe.seed)
    stories = read_stories(arguments.corpus / "stories.txt")
    held_out = read_stories(arguments.corpus / "stories-heldout.txt")
    num_bytes = sum(len(story.encode()) for story in held_out)
    tokenizer = train_tokenizer(stories, recipe.vocab_size)
    stream, held_out_stream = encode(tokenizer, stories), encode(tokenizer, held_out)
    model = GPT2(recipe)
    log.write(
        tokens=len(stream),
        held_out_tokens=len(held_out_stream),
        held_out_bytes=num_bytes,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        recipe=asdict(recipe),
    )
    for step in train(model, stream, recipe, log, is_compiled=not arguments.no_compile):
        stride = recipe.num_positions // (2 if step == recipe.num_steps else 1)
        bits = bits_per_byte(model, held_out_stream, num_bytes, recipe, stride=stride)
        log.write(step=step, held_out_bits_per_byte=round(bits, 4), stride=stride)
        export(model, tokenizer, recipe, arguments.output)
    print(sample(model, tokenizer, recipe, "Once upon a time there was a"))


if __name__ == "__main__":
    main()
