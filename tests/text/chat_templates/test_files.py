"""The places of a model's chat template."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from distilgpt2_api.core.errors import Distilgpt2ApiError, ModelFormatError, SettingsError
from distilgpt2_api.text.chat_templates.files import MAX_FILE_BYTES, load_chat_template


def write_config(folder: Path, **config: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def rendered(folder: Path, choice: str | None = None) -> str:
    template = load_chat_template(folder, choice)
    assert template is not None
    with closing(template):
        return template.render([{"role": "user", "content": "hi"}], max_characters=100)


def test_a_folder_without_a_template_has_none(tmp_path: Path) -> None:
    assert load_chat_template(tmp_path, None) is None
    write_config(tmp_path, bos_token="<s>", chat_template=None)
    assert load_chat_template(tmp_path, None) is None


def test_the_setting_beats_the_file_beats_the_tokenizers_config(tmp_path: Path) -> None:
    """The special tokens are always the tokenizer's."""
    write_config(tmp_path, bos_token="<s>", eos_token={"content": "</s>"}, chat_template="{{ bos_token }}3")
    assert rendered(tmp_path) == "<s>3"
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}2")
    assert rendered(tmp_path) == "<s>2"
    (tmp_path / "mine.jinja").write_text("{{ eos_token }}1")
    assert rendered(tmp_path, str(tmp_path / "mine.jinja")) == "</s>1"


@pytest.mark.reported("older fine-tunes that name their special tokens in special_tokens_map.json alone")
def test_special_tokens_may_be_named_in_their_own_file(tmp_path: Path) -> None:
    """Both files may begin with a byte-order mark."""
    (tmp_path / "special_tokens_map.json").write_bytes(b'\xef\xbb\xbf{"bos_token": {"content": "<s>"}}')
    (tmp_path / "chat_template.jinja").write_bytes(b"\xef\xbb\xbf{{ bos_token }}!")
    assert rendered(tmp_path) == "<s>!"


def test_the_models_own_template_can_be_switched_off(tmp_path: Path) -> None:
    """Even if it is broken."""
    (tmp_path / "chat_template.jinja").write_text("{% if")
    assert load_chat_template(tmp_path, "off") is None


def test_of_several_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    write_config(tmp_path, chat_template=named)
    assert rendered(tmp_path) == "d"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b"\xff"),
        ("tokenizer_config.json", b"[" * 100_000),
        ("tokenizer_config.json", b'{"chat_template": 5}'),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "tool_use", "template": "t"}]}'),
        ("tokenizer_config.json", b'{"chat_template": "{{"}'),
        ("chat_template.jinja", b"{% if"),
        ("chat_template.jinja", b"\xff"),
        ("chat_template.jinja", b" " * (MAX_FILE_BYTES + 1)),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ModelFormatError, match=name) as caught:
        load_chat_template(tmp_path, None)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"{% if", b"\xff"])
def test_a_broken_setting_is_a_settings_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.jinja"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SettingsError, match=r"^chat_template: .*mine\.jinja"):
        load_chat_template(tmp_path, str(path))


def test_a_folder_is_not_a_template(tmp_path: Path) -> None:
    with pytest.raises(Distilgpt2ApiError, match="not a file"):
        load_chat_template(tmp_path, str(tmp_path))
