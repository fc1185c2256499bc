"""Finds a model's chat template: a file that a setting names, or what lies in the model's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import ModelFormatError, SettingsError
from distilgpt2_api.core.model_files import decode_text, has_file, read_model_file, read_operator_file
from distilgpt2_api.core.model_folder import CHAT_TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from distilgpt2_api.text.chat_template import ChatTemplate
from distilgpt2_api.text.special_tokens import read_special_tokens, read_tokenizer_config

OFF = "off"
MAX_FILE_BYTES = 4 * 1024 * 1024


def load_chat_template(folder: Path, choice: str | None) -> ChatTemplate | None:
    """From the file that `choice` names; without one, the folder's own; None where that has none, and for `off`.

    The folder's: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`, which is a text, or a list of
    named ones of which we take `default`. Raises ModelFormatError, or SettingsError for the chosen file.
    """
    if choice == OFF:
        return None
    config = read_tokenizer_config(folder)
    special_tokens = read_special_tokens(folder, config).roles
    if choice is not None:
        return _load_chosen(Path(choice).expanduser(), special_tokens)
    if has_file(folder / CHAT_TEMPLATE_FILE):
        path = folder / CHAT_TEMPLATE_FILE
        return _parse(path, read_model_file(path, MAX_FILE_BYTES), special_tokens)
    source = _default_of(config.get("chat_template"), folder / TOKENIZER_CONFIG_FILE)
    if source is None:
        return None
    return ChatTemplate(source, origin=str(folder / TOKENIZER_CONFIG_FILE), special_tokens=special_tokens)


def _load_chosen(path: Path, special_tokens: Mapping[str, str]) -> ChatTemplate:
    try:
        return _parse(path, read_operator_file(path, MAX_FILE_BYTES), special_tokens)
    except ModelFormatError as error:
        raise SettingsError(f"chat_template: {error}") from None


def _parse(path: Path, content: bytes, special_tokens: Mapping[str, str]) -> ChatTemplate:
    return ChatTemplate(decode_text(path, content), origin=str(path), special_tokens=special_tokens)


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
