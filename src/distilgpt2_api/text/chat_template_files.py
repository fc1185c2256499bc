"""Finds a model's chat template: a file that a setting names, or what lies in the model's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import ModelFormatError, SettingsError
from distilgpt2_api.core.model_files import has_file, parse_json_object, read_chosen_file, read_model_file
from distilgpt2_api.text.chat_template import ChatTemplate

OFF = "off"
TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
MAX_FILE_BYTES = 4 * 1024 * 1024
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def load_chat_template(folder: Path, choice: str | None) -> ChatTemplate | None:
    """From the file that `choice` names; without one, the folder's own; None where that has none, and for `off`.

    The folder's: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`, which is a text, or a list of
    named ones of which we take `default`. Raises ModelFormatError, or SettingsError for the chosen file.
    """
    if choice == OFF:
        return None
    config = _read_config(folder / TOKENIZER_CONFIG_FILE)
    special_tokens = _special_tokens(config)
    if choice is not None:
        return _load_chosen(Path(choice).expanduser(), special_tokens)
    if has_file(folder / TEMPLATE_FILE):
        path = folder / TEMPLATE_FILE
        return _parse(path, read_model_file(path, MAX_FILE_BYTES), special_tokens)
    source = _default_of(config.get("chat_template"), folder / TOKENIZER_CONFIG_FILE)
    if source is None:
        return None
    return ChatTemplate(source, origin=str(folder / TOKENIZER_CONFIG_FILE), special_tokens=special_tokens)


def _load_chosen(path: Path, special_tokens: dict[str, str]) -> ChatTemplate:
    try:
        return _parse(path, read_chosen_file(path, MAX_FILE_BYTES), special_tokens)
    except ModelFormatError as error:
        raise SettingsError(f"chat_template: {error}") from None


def _parse(path: Path, content: bytes, special_tokens: dict[str, str]) -> ChatTemplate:
    try:
        source = content.decode()
    except UnicodeDecodeError:
        raise ModelFormatError(f"{path}: not UTF-8") from None
    return ChatTemplate(source, origin=str(path), special_tokens=special_tokens)


def _default_of(declared: Any, path: Path) -> str | None:
    match declared:
        case None | str():
            return declared
        case list():
            for entry in declared:
                match entry:
                    case {"name": "default", "template": str() as source}:
                        return source
    raise ModelFormatError(f"{path}: chat_template is neither a text nor a list with one of the name `default`")


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    tokens = {}
    for name in SPECIAL_TOKENS:
        match config.get(name):
            case str() as text:
                tokens[name] = text
            case {"content": str() as text}:
                tokens[name] = text
    return tokens


def _read_config(path: Path) -> dict[str, Any]:
    return parse_json_object(path, read_model_file(path, MAX_FILE_BYTES)) if has_file(path) else {}
