"""Tokens around a text's own: as the `tokenizers` library adds them for the same file."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from tokenizers import Tokenizer as LibraryTokenizer

from distilgpt2_api.core.errors import ModelError, ModelFormatError, UnsupportedModelError
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

TEXT = "The king isn't here"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
TOKEN_A: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}


def special(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}


def template(*single: object, **ids: list[int]) -> dict[str, Any]:
    tokens = {name: {"id": name, "ids": of, "tokens": ["x"] * len(of)} for name, of in ids.items()}
    pair = [TOKEN_A, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": [*single], "pair": pair, "special_tokens": tokens}


def roberta(kind: str = "RobertaProcessing") -> dict[str, Any]:
    ends = {"sep": ["x", 3], "cls": ["y", 5]}
    return {"type": kind, **ends, **({"trim_offsets": True, "add_prefix_space": False} if "Rob" in kind else {})}


def write(json_folder: Path, folder: Path, post_processor: object) -> Path:
    description = json.loads((json_folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(description | {"post_processor": post_processor}))
    return folder


@pytest.mark.reported("a tokenizer.json whose TemplateProcessing puts a BOS token first, as Llama's and others' do")
@pytest.mark.parametrize(
    "post_processor",
    [
        None,
        BYTE_LEVEL,
        template(special("s"), TOKEN_A, s=[0]),
        template(special("s"), TOKEN_A, special("e"), special("s"), s=[0, 7], e=[9]),
        roberta(),
        roberta("BertProcessing"),
        {"type": "Sequence", "processors": [BYTE_LEVEL, template(special("s"), TOKEN_A, s=[0])]},
    ],
)
def test_post_processors_add_what_the_library_adds(json_folder: Path, tmp_path: Path, post_processor: object) -> None:
    folder = write(json_folder, tmp_path, post_processor)
    tokenizer = Tokenizer.from_folder(folder)
    library = LibraryTokenizer.from_file(str(folder / "tokenizer.json"))
    for text in (TEXT, ""):
        assert tokenizer.with_special_tokens(tokenizer.encode(text)) == library.encode(text).ids
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("post_processor", "error", "message"),
    [
        ({"type": "No"}, UnsupportedModelError, "post_processor No is not supported"),
        (5, ModelFormatError, "post_processor: 5 must be an object with a type"),
        (template(special("s"), s=[0]), UnsupportedModelError, "has the text 0 times"),
        (template(TOKEN_A, TOKEN_A), UnsupportedModelError, "has the text 2 times"),
        (template(special("s"), TOKEN_A), ModelFormatError, "special token s must have a list of ids"),
        (template(special("s"), TOKEN_A, s=[-1]), ModelFormatError, "special token s must have a list of ids"),
        (template(special("s"), TOKEN_A, s=[2**70]), ModelFormatError, "special token s must have a list of ids"),
        (template(special("s"), TOKEN_A, s=[99_999]), ModelFormatError, "a token that the vocabulary does not have"),
        (template("A"), ModelFormatError, "'A' must be a piece of a template"),
        (template(special("s"), TOKEN_A, s=[0] * 65), UnsupportedModelError, "adds 65 tokens; at most 64"),
        ({"type": "TemplateProcessing"}, ModelFormatError, "malformed TemplateProcessing"),
        ({"type": "BertProcessing", "cls": ["a", True], "sep": ["b", 0]}, ModelFormatError, "malformed BertP"),
    ],
)
def test_an_unsupported_post_processor_is_refused_by_name(
    json_folder: Path, tmp_path: Path, post_processor: object, error: type[ModelError], message: str
) -> None:
    with pytest.raises(error, match=rf"tokenizer\.json: .*{message}"):
        Tokenizer.from_folder(write(json_folder, tmp_path, post_processor))


@pytest.mark.parametrize(
    ("config", "before", "after"),
    [
        ({"add_bos_token": True}, (0,), ()),
        ({"add_bos_token": True, "add_eos_token": True, "eos_token": "old"}, (0,), ("old",)),
        ({"add_bos_token": False}, (), ()),
    ],
)
def test_beside_a_vocabulary_the_flags_count(
    vocabulary_folder: Path, tmp_path: Path, config: dict[str, object], before: tuple[int, ...], after: tuple[str, ...]
) -> None:
    copytree(vocabulary_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.files.frame.before == before
    assert tokenizer.files.frame.after == tuple(map(tokenizer.token_id, after))


def test_beside_a_tokenizer_json_its_post_processor_counts_alone(json_folder: Path, tmp_path: Path) -> None:
    """As in `transformers`."""
    folder = write(json_folder, tmp_path, BYTE_LEVEL)
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    assert len(Tokenizer.from_folder(folder).files.frame) == 0


def test_a_flag_for_a_missing_token_is_refused(vocabulary_folder: Path, tmp_path: Path) -> None:
    copytree(vocabulary_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "bos_token": "<nowhere>"}))
    with pytest.raises(ModelFormatError, match=r"tokenizer_config\.json: add_bos_token is true, but .*'<nowhere>'"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("form", ["json_folder", "vocabulary_folder"])
def test_the_tokenizers_config_decides_on_a_prefix_space(
    request: pytest.FixtureRequest, form: str, tmp_path: Path
) -> None:
    copytree(request.getfixturevalue(form), tmp_path, dirs_exist_ok=True)
    plain = Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": True}))
    prefixing = Tokenizer.from_folder(tmp_path)
    assert (plain.files.has_prefix_space, prefixing.files.has_prefix_space) == (False, True)
    assert prefixing.encode("king") == plain.encode(" king") != plain.encode("king")
