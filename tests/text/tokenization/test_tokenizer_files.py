from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, pre_tokenizers

from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer
from distilgpt2_api.text.tokenization.tokenizer_files import MAX_FILE_BYTES

TEXT = "The king isn't here — 東京 🎉\n\n<|endoftext|> 1812"


def test_every_form_gives_the_same_tokenizer(json_folder: Path, vocabulary_folder: Path, openai_folder: Path) -> None:
    tokenizers = [Tokenizer.from_folder(folder) for folder in (json_folder, vocabulary_folder, openai_folder)]
    assert len({tuple(tokenizer.encode(TEXT)) for tokenizer in tokenizers}) == 1
    assert len({tokenizer.token_bytes for tokenizer in tokenizers}) == 1
    assert len({tokenizer.special_token_ids for tokenizer in tokenizers}) == 1


def test_tokenizer_json_goes_first(json_folder: Path, tmp_path: Path) -> None:
    copytree(json_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "vocab.json").write_text("broken")
    assert Tokenizer.from_folder(tmp_path).encode(TEXT)


def test_truncation_and_padding_written_in_the_file_do_not_act(json_folder: Path, tmp_path: Path) -> None:
    library = LibraryTokenizer.from_file(str(json_folder / "tokenizer.json"))
    library.enable_truncation(max_length=2)
    library.enable_padding(length=100)
    library.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_folder(tmp_path).encode(TEXT) == Tokenizer.from_folder(json_folder).encode(TEXT)


def test_tokens_added_by_fine_tuning_follow_the_vocabulary(vocabulary_folder: Path, tmp_path: Path) -> None:
    copytree(vocabulary_folder, tmp_path, dirs_exist_ok=True)
    num_tokens = Tokenizer.from_folder(tmp_path).vocab_size
    added = tmp_path / "added_tokens.json"
    added.write_text(json.dumps({"<|b|>": num_tokens + 1, "<|a|>": num_tokens}))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.encode("<|b|><|a|>") == [num_tokens + 1, num_tokens]
    added.write_text(json.dumps({"<|a|>": num_tokens + 7}))
    with pytest.raises(ModelFormatError, match=r"added_tokens.json: '<[|]a[|]>' has id"):
        Tokenizer.from_folder(tmp_path)


FORMS = ("json_folder", "vocabulary_folder", "openai_folder")
"""Every form, for what is the same in all of them."""
FLAGS = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)


@pytest.fixture(params=FORMS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A private copy of the model folder, in each form."""
    copytree(request.getfixturevalue(request.param), tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.reported("a fine-tune with <|user|> in added_tokens.json; transformers reads it beside every vocabulary")
def test_added_tokens_count_beside_every_form_of_the_vocabulary(folder: Path) -> None:
    """A token is special only if a file says so, as in `transformers`."""
    user, end = Tokenizer.from_folder(folder).vocab_size, Tokenizer.from_folder(folder).vocab_size + 1
    (folder / "added_tokens.json").write_text(json.dumps({"<|user|>": user, "<|done|>": end}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<|done|>"]}))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode("<|user|>a<|done|>") == [user, *tokenizer.encode("a"), end]
    assert tokenizer.special_token_ids == {0, end}


@pytest.mark.reported(
    "a vocab.json with <s> and </s> and a special_tokens_map.json; transformers gives one id for each"
)
@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json"])
def test_tokens_of_the_vocabulary_that_a_file_calls_special_are(folder: Path, name: str) -> None:
    """In a text each is one token, although the merges would produce others."""
    old, the = (Tokenizer.from_folder(folder).token_id(text) for text in ("old", "Ġthe"))
    named = {"bos_token": "old", "eos_token": {"content": "Ġthe", "lstrip": False}, "pad_token": "<nowhere>"}
    (folder / name).write_text(json.dumps(named))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode("oldĠthe") == [old, the]
    assert tokenizer.special_token_ids == {0, old, the}
    assert tokenizer.token_bytes[the or 0].decode() == "Ġthe"
    assert tokenizer.eos_token_id == the


def test_an_added_tokens_decoder_goes_before_the_older_files(folder: Path) -> None:
    """As in `transformers`: it lists all of them, with their flags."""
    token_id = Tokenizer.from_folder(folder).vocab_size
    decoder = {str(token_id): {"content": "<|user|>", **FLAGS, "rstrip": True, "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "king"}))
    (folder / "added_tokens.json").write_text(json.dumps({"<|else|>": token_id}))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode("<|user|>  a") == [token_id, *tokenizer.encode("a")]
    assert tokenizer.special_token_ids == {0, token_id}
    assert tokenizer.eos_token_id is None


def test_special_tokens_are_plain_text_if_the_config_says_so(folder: Path) -> None:
    """`split_special_tokens`, as in `transformers`."""
    (folder / "tokenizer_config.json").write_text(json.dumps({"split_special_tokens": True}))
    tokenizer = Tokenizer.from_folder(folder)
    assert 0 not in tokenizer.encode("<|endoftext|>")
    assert tokenizer.decode(tokenizer.encode("<|endoftext|>")) == "<|endoftext|>"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"["),
        ("tokenizer_config.json", b'{"eos_token": 5}'),
        ("tokenizer_config.json", b'{"additional_special_tokens": 5}'),
        ("tokenizer_config.json", b'{"extra_special_tokens": {"image_token": []}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": []}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "a"}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"1": {"content": 5}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"99999": {"content": "<|user|>"}}}'),
        ("special_tokens_map.json", b"[]"),
        ("special_tokens_map.json", b'{"bos_token": []}'),
        ("added_tokens.json", b'{"<|user|>": 99999}'),
    ],
)
def test_a_broken_file_of_special_tokens_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFormatError, match=name) as caught:
        Tokenizer.from_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.reported("tokenizer files saved by a Windows editor, which puts a byte-order mark first")
def test_any_file_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"<|endoftext|>": 0}')
    (folder / "tokenizer_config.json").write_text("{}")
    before = Tokenizer.from_folder(folder).encode(TEXT)
    for path in folder.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Tokenizer.from_folder(folder).encode(TEXT) == before


def test_an_empty_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"no tokenizer.json, and no vocab.json with merges.txt"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}'],
)
def test_a_malformed_tokenizer_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"tokenizer.json: not a"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("name", ["vocab.json", "added_tokens.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"a": "b"}',
        b'{"a": -1}',
        b'{"a": 1.5}',
        b'{"a": true}',
        b"\xff",
        b'{"a": 4294967296}',
    ],
)
def test_a_malformed_list_of_ids_is_named(vocabulary_folder: Path, tmp_path: Path, name: str, content: bytes) -> None:
    copytree(vocabulary_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFormatError, match=name):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("content", [b"a\n", b"a b c\n", b" a\n", b"\xff", b"no such\n"])
def test_malformed_merges_are_named(vocabulary_folder: Path, tmp_path: Path, content: bytes) -> None:
    copytree(vocabulary_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "merges.txt").write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"merges.txt"):
        Tokenizer.from_folder(tmp_path)


def test_merges_with_windows_line_ends_are_the_same(vocabulary_folder: Path, tmp_path: Path) -> None:
    copytree(vocabulary_folder, tmp_path, dirs_exist_ok=True)
    merges = tmp_path / "merges.txt"
    merges.write_bytes(merges.read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.from_folder(tmp_path).encode(TEXT) == Tokenizer.from_folder(vocabulary_folder).encode(TEXT)


def test_missing_merges_are_named(vocabulary_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes((vocabulary_folder / "vocab.json").read_bytes())
    with pytest.raises(ModelFormatError, match=r"merges.txt: can't be read: No such file"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json"])
def test_a_huge_file_is_not_read(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ModelFormatError, match=f"{name}: has {MAX_FILE_BYTES + 1} bytes"):
        Tokenizer.from_folder(tmp_path)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(ModelFormatError, match=r"tokenizer.json: not a file"):
        Tokenizer.from_folder(tmp_path)


def test_an_invalid_vocabulary_names_its_folder(json_folder: Path, tmp_path: Path) -> None:
    description = json.loads((json_folder / "tokenizer.json").read_text())
    description["model"]["vocab"]["東"] = 300_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(ModelFormatError, match=tmp_path.name):
        Tokenizer.from_folder(tmp_path)


def word_piece(description: dict[str, Any]) -> None:
    description["model"] = {
        "type": "WordPiece",
        "vocab": {"[UNK]": 0},
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }


def no_bytes(description: dict[str, Any]) -> None:
    description["pre_tokenizer"] = None


def whitespace(description: dict[str, Any]) -> None:
    description["pre_tokenizer"] = {"type": "Whitespace"}


def option(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(description: dict[str, Any]) -> None:
        description["model"][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (word_piece, "a WordPiece tokenizer"),
        (no_bytes, "a BPE over characters"),
        (whitespace, "a BPE over characters"),
        (option("byte_fallback", True), "byte_fallback=True"),
        (option("dropout", 0.5), "dropout=0.5"),
        (option("end_of_word_suffix", "</w>"), "end_of_word_suffix='</w>'"),
    ],
)
def test_another_kind_of_tokenizer_is_refused_with_the_reason(
    json_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    description = json.loads((json_folder / "tokenizer.json").read_text())
    change(description)
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(UnsupportedModelError, match=reason):
        Tokenizer.from_folder(tmp_path)


def test_bytes_among_other_steps_are_fine(json_folder: Path, tmp_path: Path) -> None:
    library = LibraryTokenizer.from_file(str(json_folder / "tokenizer.json"))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert isinstance(library.model, models.BPE)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
