"""`override_generation_config` and `generation_config`: a service's sampling defaults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distilgpt2_api.core.errors import ModelFormatError, SettingsError
from distilgpt2_api.settings import Settings

MODEL = {"eos_token_id": 50256, "do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": None, "max_new_tokens": 50}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "generation_config.json").write_text(json.dumps(MODEL))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"generation_config": "auto"}, {"temperature": 0.7, "top_k": 40, "max_new_tokens": 50}),
        ({"override_generation_config": '{"top_k": 5}'}, {"top_k": 5}),
        (
            {"generation_config": "auto", "override_generation_config": '{"top_k": 5, "min_p": 0.1}'},
            {"temperature": 0.7, "top_k": 5, "min_p": 0.1, "max_new_tokens": 50},
        ),
    ],
)
def test_the_operator_chooses_the_models_defaults_and_others(
    options: dict[str, str], expected: dict[str, object], folder: Path
) -> None:
    assert Settings(**options).sampling_defaults(folder).as_dict() == expected


def test_a_model_needs_no_such_file(tmp_path: Path) -> None:
    assert Settings(generation_config="auto").sampling_defaults(tmp_path).as_dict() == {}


def test_they_can_be_a_table_of_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[override_generation_config]\ntemperature = 0.8\nmax_new_tokens = 128\n")
    monkeypatch.setenv("DISTILGPT2_CONFIG_FILE", str(file))
    settings = Settings()
    assert settings.sampling_defaults(tmp_path).as_dict() == {"temperature": 0.8, "max_new_tokens": 128}
    [shown] = [one for one in settings.describe() if one.name == "override_generation_config"]
    assert (shown.value, shown.default) == ('{"temperature": 0.8, "max_new_tokens": 128}', "")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("temperature=1", r"it must be a JSON object, such as \{\"temperature\": 0.8\}"),
        ("[1]", "it must be an object"),
        ('{"temperature": 3}', "temperature must be a number from 0 to 2"),
        ('{"stop": ["a"]}', "'stop' is none of the parameters that can have a default"),
    ],
)
def test_an_invalid_value_is_one_line(value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILGPT2_OVERRIDE_GENERATION_CONFIG", value)
    with pytest.raises(
        SettingsError, match=rf"DISTILGPT2_OVERRIDE_GENERATION_CONFIG \(environment\) can't be .*{message}"
    ):
        Settings()


def test_an_invalid_file_names_the_option_and_the_way_out(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"temperature": 5}')
    with pytest.raises(ModelFormatError, match=r"generation_config\.json: temperature must be .*generation_config=off"):
        Settings(generation_config="auto").sampling_defaults(folder)
    assert Settings().sampling_defaults(folder).as_dict() == {}
