"""Loads a model's chat template: from the file that a setting names, or from the model's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import ModelFormatError, SettingsError
from distilgpt2_api.core.model_files import decode_text, has_file, read_model_file, read_operator_file
from distilgpt2_api.core.model_folder import CHAT_TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate
from distilgpt2_api.text.limited_process import LimitedProcess
from distilgpt2_api.text.tokenization.special_tokens import read_special_tokens, read_tokenizer_config

OFF = "off"
RENDERER = "distilgpt2_api.text.chat_templates.renderer"
"""A name, because `ChatTemplate` imports the module."""
MAX_FILE_BYTES = 4 * 1024 * 1024


def load_chat_template(folder: Path, choice: str | None) -> ChatTemplate | None:
    """The template in the file `choice`, or the folder's own if `choice` is None. None if there is none, or for `off`.

    The folder's own is `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`: a string, or a list of
    named templates, of which `default` is used. It is rendered in a limited process; the operator's file is trusted.
    Raises ModelFormatError, or SettingsError for `choice`.
    """
    if choice == OFF:
        return None
    config = read_tokenizer_config(folder)
    special_tokens = read_special_tokens(folder, config).roles
    if choice is not None:
        return _load_operators(Path(choice).expanduser(), special_tokens)
    path = folder / CHAT_TEMPLATE_FILE
    if has_file(path):
        source: str | None = decode_text(path, read_model_file(path, MAX_FILE_BYTES))
    else:
        path = folder / TOKENIZER_CONFIG_FILE
        source = _read_default(config.get("chat_template"), path)
    if source is None:
        return None
    process = LimitedProcess(RENDERER, preparation=source)
    return ChatTemplate(source, origin=str(path), special_tokens=special_tokens, process=process)


def _load_operators(path: Path, special_tokens: Mapping[str, str]) -> ChatTemplate:
    try:
        source = decode_text(path, read_operator_file(path, MAX_FILE_BYTES))
        return ChatTemplate(source, origin=str(path), special_tokens=special_tokens)
    except ModelFormatError as error:
        raise SettingsError(f"chat_template: {error}") from None


def _read_default(declared: Any, path: Path) -> str | None:
    match declared:
        case None | str():
            return declared
        case list():
            for entry in declared:
                match entry:
                    case {"name": "default", "template": str() as source}:
                        return source
    raise ModelFormatError(
        f"{path}: chat_template must be a string or a list of templates, one of them named `default`"
    )
