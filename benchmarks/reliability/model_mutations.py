"""Corrupts a random file of a small model folder: the same seed corrupts the same file in the same way."""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.make_model import END_OF_TEXT, write_tokenizer
from benchmarks.reliability.torch_file_mutations import corrupt_torch_file
from benchmarks.torch_file import save
from numpy.typing import NDArray

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.model_folder import (
    ADDED_TOKENS_FILE,
    CHAT_TEMPLATE_FILE,
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    OPTIONAL_FILES,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    VOCABULARY_FILES,
)
from distilgpt2_api.model.architectures.registry import read_model_config, tensor_specs
from distilgpt2_api.model.compilation import compile_model
from distilgpt2_api.model.weights.weight_files import INDEX_FILE, SINGLE_FILE, compiled_name

CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "n_inner": None,
    "n_positions": 64,
    "vocab_size": 320,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 319,
    "eos_token_id": 319,
}
COMPILED_FILE = compiled_name(Precision.INT8)
PICKLES = ("pytorch_model.bin", "legacy.pt")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.bin")
ADAPTER_CONFIG = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "rank_pattern": {"h.1.attn.c_attn": 4},
    "use_rslora": True,
}
TARGETS = (
    SINGLE_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
    *VOCABULARY_FILES[0],
    INDEX_FILE,
    COMPILED_FILE,
    *PICKLES,
    *ADAPTER_FILES,
    *OPTIONAL_FILES,
)
CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
SPECIAL_FILES: dict[str, Any] = {
    GENERATION_CONFIG_FILE: {"eos_token_id": [319, 7], "bos_token_id": 319, "do_sample": True, "temperature": 0.7},
    TOKENIZER_CONFIG_FILE: {
        "add_bos_token": True,
        "add_prefix_space": False,
        "added_tokens_decoder": {"320": {"content": "<|user|>", **FLAGS, "special": True}},
        "bos_token": END_OF_TEXT,
        "eos_token": {"__type": "AddedToken", "content": END_OF_TEXT, **FLAGS},
        "additional_special_tokens": ["<|user|>"],
        "chat_template": [{"name": "default", "template": CHAT_TEMPLATE}],
    },
    SPECIAL_TOKENS_FILE: {"eos_token": END_OF_TEXT, "additional_special_tokens": ["<|user|>", {"content": "<|end|>"}]},
    ADDED_TOKENS_FILE: {"<|user|>": 320, "<|end|>": 321},
}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
DEEP = "\N{SNOWMAN}"  # placeholder for deeply nested arrays, which json.dumps can't write
NUMBERS = (0, -1, 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**5000, 1.5, 1e308)
TEXTS = (
    "",
    "../x",
    "/etc/passwd",
    "a\0b",
    "..\\x",
    "x" * 20_000,
    "\ud800",
    "\n\x1b[31m",
    "F32",
    "Sequence",
    "ByteLevel",
)
OTHERS: tuple[Any, ...] = (None, True, [], {}, [[]], {"type": "Sequence"}, float("nan"), float("inf"), DEEP)


@dataclass(frozen=True, slots=True)
class Corruption:
    """A description of the change, and the file's size afterwards in bytes, including holes."""

    target: str
    how: str
    num_bytes: int


def write_model(folder: Path) -> dict[str, bytes]:
    """All files of the model by name, before corruption; `folder` is for generating them."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_tokenizer(folder, CONFIG["vocab_size"])
    draw = np.random.default_rng(0)
    shapes = {name: spec.shape for name, spec in tensor_specs(read_model_config(folder)).items()}
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    files = {name: (folder / name).read_bytes() for name in ("config.json", "vocab.json", "merges.txt")}
    files[SINGLE_FILE] = _pack(*_describe(tensors))
    halves = dict(zip(SHARDS, (list(tensors)[::2], list(tensors)[1::2]), strict=True))
    for shard, part in halves.items():
        files[shard] = _pack(*_describe({name: tensors[name] for name in part}))
    weight_map = {name: shard for shard, part in halves.items() for name in part}
    files |= {name: save(tensors, is_legacy=name == PICKLES[1]) for name in PICKLES}
    adapter = {"lora_A": draw.normal(size=(4, 16)), "lora_B": draw.normal(size=(48, 4))}
    names = {f"base_model.model.transformer.h.1.attn.c_attn.{part}.weight": part for part in adapter}
    files["adapter_model.bin"] = save({name: adapter[part].astype(np.float32) for name, part in names.items()})
    files["adapter_config.json"] = json.dumps(ADAPTER_CONFIG).encode()
    files[INDEX_FILE] = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()
    files["tokenizer.json"] = _tokenizer_json(files["vocab.json"], files["merges.txt"])
    files |= {name: json.dumps(content).encode() for name, content in SPECIAL_FILES.items()}
    files[CHAT_TEMPLATE_FILE] = CHAT_TEMPLATE.encode()
    (folder / SINGLE_FILE).write_bytes(files[SINGLE_FILE])
    compile_model(folder, folder / "compiled", Precision.INT8)
    files[COMPILED_FILE] = (folder / "compiled" / COMPILED_FILE).read_bytes()
    return files


def corrupt(files: dict[str, bytes], folder: Path, seed: int) -> Corruption:
    """Write to `folder` all files that are needed to open one file, with this file corrupted."""
    rng = random.Random(seed)
    target = rng.choice(TARGETS)
    companions = {"merges.txt": ["vocab.json"], "vocab.json": ["merges.txt"], INDEX_FILE: [*SHARDS]}
    companions |= {name: [TOKENIZER_FILE] for name in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE)}
    companions[ADDED_TOKENS_FILE].append(SPECIAL_TOKENS_FILE)
    companions |= {name: [SINGLE_FILE, *ADAPTER_FILES] for name in ADAPTER_FILES}
    companions[CHAT_TEMPLATE_FILE] = [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE]
    needed = {"config.json", SINGLE_FILE} if target == "config.json" else {"config.json", *companions.get(target, [])}
    for name in needed:
        (folder / name).write_bytes(files[name])
    path = folder / target
    path.unlink(missing_ok=True)
    if rng.random() < 0.03:
        return Corruption(target, _misplace(rng, path, files[target]), 0)
    content, how = files[target], "as it was"
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content, how = _corrupt_content(rng, target, content)
    if target == COMPILED_FILE and rng.random() < 0.7:
        content = _renew_checksum(content)
    path.write_bytes(content)
    if rng.random() < 0.02:
        os.truncate(path, len(content) + (1 << rng.randrange(10, 36)))
        how += ", then a hole at the end"
    return Corruption(target, how, path.stat().st_size)


def _corrupt_content(rng: random.Random, target: str, content: bytes) -> tuple[bytes, str]:
    if rng.random() < 0.4:
        return _corrupt_bytes(rng, content)
    if target.endswith(".safetensors"):
        return _corrupt_safetensors(rng, content)
    if target.endswith((".bin", ".pt")):
        return corrupt_torch_file(rng, content)
    if target in ("merges.txt", CHAT_TEMPLATE_FILE):
        return _corrupt_lines(rng, content)
    return _corrupt_json(rng, content)


def _corrupt_bytes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    at, to = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    near = rng.randrange(min(len(content), 400) + 1)
    changed = bytearray(content)
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice((1, 8, 64)) if content else 0):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            return bytes(changed), "bits flipped"
        case 1:
            return content[:at], "cut off"
        case 2:
            return content[:at] + content[to:], "a piece left out"
        case 3:
            return content[:to] + content[at:], "a piece twice"
        case _:
            return content[:near] + rng.randbytes(rng.choice((1, 4, 8))) + content[near + 1 :], "a splice"


def _corrupt_safetensors(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    match rng.randrange(5):
        case 0:
            lie = rng.choice((0, 1, length - 1, length + 1, len(content), 2**31, 2**63, 2**64 - 1))
            return struct.pack("<Q", min(max(lie, 0), 2**64 - 1)) + header + data, "wrong header length"
        case 1:
            number = rng.choice((float("nan"), float("inf"), -float("inf"), 3e38))
            at = 4 * rng.randrange(max(len(data) // 4, 1))
            return content[: 8 + length] + data[:at] + struct.pack("<f", number) + data[at + 4 :], "no number"
        case 2:
            return _pack(_move_offsets(rng, header), data), "offsets moved"
        case _:
            corruption, how = _corrupt_json(rng, header)
            return _pack(corruption, data), f"header: {how}"


def _renew_checksum(content: bytes) -> bytes:
    """Make the checksum match again, as an attacker would."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"]["crc32"] = str(zlib.crc32(content[8 + length :]))
        return _pack(json.dumps(header).encode(), content[8 + length :])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # no valid header left
        return content


def _move_offsets(rng: random.Random, header: bytes) -> bytes:
    try:
        entries = json.loads(header)
        entry = entries[rng.choice([name for name in entries if name != "__metadata__"])]
        index = rng.randrange(2)
        entry["data_offsets"][index] += rng.choice((-(2**40), -64, -1, 1, 4, 64, 2**40, 2**62))
        if rng.random() < 0.5:
            entry["shape"][0] = rng.choice((0, 1, entry["shape"][0] + 1, 2**61, 2**63 - 1))
        return json.dumps(entries).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # already corrupted
        return header


def _corrupt_lines(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines[at] = rng.choice((b"", b"no such", b"a", b"a b c", b"\xff \xfe", b"\0 \0", b"x" * 99_999 + b" y"))
        case 1:
            lines *= rng.choice((2, 50))
        case 2:
            rng.shuffle(lines)
        case _:
            del lines[at]
    return b"\n".join(lines), "lines changed"


def _corrupt_json(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Remove or replace one value anywhere in the tree, or extend its parent."""
    try:
        root: dict[str, Any] = {"root": json.loads(content)}
    except (ValueError, RecursionError):  # already corrupted
        return _corrupt_bytes(rng, content)
    holder: Any = root
    key: Any = "root"
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4, 6))):
        if not isinstance(holder[key], dict | list) or not holder[key]:
            break
        holder = holder[key]
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    match rng.randrange(8):
        case 0 if holder is not root:
            del holder[key]
        case 1 if isinstance(holder, dict) and holder is not root:
            holder.update({f"more{number}": rng.choice(NUMBERS) for number in range(2000)})
        case 2 if isinstance(holder, list):
            holder.extend([holder[key]] * 5000)
        case 3 if isinstance(holder, dict) and holder is not root:
            holder[rng.choice(TEXTS)] = holder.pop(key)
        case _:
            holder[key] = rng.choice(rng.choice((NUMBERS, TEXTS, OTHERS)))
    deep = "[" * rng.choice((100, 990, 100_000))
    sys.set_int_max_str_digits(0)  # to write numbers that every reader refuses
    try:
        dumped = json.dumps(root["root"]).replace(json.dumps(DEEP), deep + "]" * len(deep)).encode()
    finally:
        sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)
    return dumped, f"value at {str(key)[:40]!r} corrupted"


def _misplace(rng: random.Random, path: Path, content: bytes) -> str:
    """Put something else in the file's place."""
    match rng.randrange(6):
        case 0:
            os.mkfifo(path)
            return "a pipe"
        case 1:
            path.mkdir()
            return "a folder"
        case 2:
            path.symlink_to("/dev/zero")
            return "a link to an endless device"
        case 3:
            path.symlink_to(path)
            return "a link to itself"
        case 4:
            outside = path.parent.parent / f"outside-{path.name}"
            outside.write_bytes(content)
            path.symlink_to(outside)
            return "a link out of the folder"
        case _:
            path.symlink_to("nowhere")
            return "a link to nowhere"


def _describe(tensors: dict[str, NDArray[np.float32]]) -> tuple[bytes, bytes]:
    """Header and bytes of a safetensors file."""
    header: dict[str, Any] = {}
    begin = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, begin + tensor.nbytes]}
        begin += tensor.nbytes
    return json.dumps(header).encode(), b"".join(tensor.tobytes() for tensor in tensors.values())


def _pack(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _template(token_id: int) -> dict[str, Any]:
    """A post-processor that puts a BOS token first."""
    text, other = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    token = {"id": END_OF_TEXT, "ids": [token_id], "tokens": [END_OF_TEXT]}
    single = [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}, text]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, other],
        "special_tokens": {END_OF_TEXT: token},
    }


def _tokenizer_json(vocabulary: bytes, merges: bytes) -> bytes:
    vocab = json.loads(vocabulary)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": vocab[END_OF_TEXT], "content": END_OF_TEXT, **FLAGS, "special": True}],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
            },
            "post_processor": {"type": "Sequence", "processors": [byte_level, _template(vocab[END_OF_TEXT])]},
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": vocab,
                "merges": [line.split(" ") for line in merges.decode().splitlines()[1:]],
            },
        }
    ).encode()
