from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings import LogFormat, Settings
from distilgpt2_api.settings.sources import ENV_PREFIX, SettingSource


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name in {"HOST", "PORT"} or name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "settings.toml"
        path.write_text(text)
        monkeypatch.setenv("DISTILGPT2_CONFIG_FILE", str(path))
        return path

    return write


def source_of(settings: Settings, name: str) -> SettingSource:
    return next(setting.source for setting in settings.describe() if setting.name == name)


def test_command_line_beats_environment_beats_file_beats_default(
    config_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file("port = 1\nmax_n = 2\ndrain_s = 3\n")
    monkeypatch.setenv("DISTILGPT2_PORT", "10")
    monkeypatch.setenv("DISTILGPT2_MAX_N", "20")
    settings = Settings(port=100)
    assert (settings.port, settings.max_n, settings.drain_s, settings.max_logprobs) == (100, 20, 3.0, 20)
    assert [source_of(settings, name) for name in ("port", "max_n", "drain_s", "max_logprobs")] == list(SettingSource)


def test_text_from_the_environment_becomes_typed_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILGPT2_PRECISION", "f32")
    monkeypatch.setenv("DISTILGPT2_KV_CACHE_BYTES", "512MiB")
    monkeypatch.setenv("DISTILGPT2_PREFIX_CACHING", "false")
    monkeypatch.setenv("DISTILGPT2_LOG_FORMAT", "json")
    monkeypatch.setenv("DISTILGPT2_HOME", "/models")
    settings = Settings()
    assert settings.precision is Precision.F32
    assert settings.kv_cache_bytes == 512 << 20
    assert settings.prefix_caching is False
    assert settings.log_format is LogFormat.JSON
    assert settings.home == Path("/models")


@pytest.mark.parametrize("name", ["NUM_THREADS", "KV_CACHE_BYTES"])
def test_auto_is_the_default_spelled_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_PREFIX + name, "auto")
    assert getattr(Settings(), name.lower()) is None


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILGPT2_MODEL", "")
    monkeypatch.setenv("DISTILGPT2_CONFIG_FILE", "")
    monkeypatch.setenv("PORT", "")
    assert (Settings().model, Settings().port) == (None, 8000)


def test_our_own_variables_take_precedence_over_the_platforms_port_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("HOST", "127.0.0.1")
    monkeypatch.setenv("DISTILGPT2_HOST", "::1")
    assert (Settings().port, Settings().host) == (9000, "::1")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORT": "abc"}, "PORT (environment) can't be 'abc': input should be a valid integer"),
        ({"DISTILGPT2_PORT": "70000"}, "DISTILGPT2_PORT (environment) can't be '70000': input should be less than or"),
        (
            {"DISTILGPT2_PRECISION": "int4"},
            "DISTILGPT2_PRECISION (environment) can't be 'int4': input should be 'int8'",
        ),
        (
            {"DISTILGPT2_PRECISON": "f32"},
            "unknown setting DISTILGPT2_PRECISON in the environment; did you mean DISTILGPT2_PRECISION?",
        ),
        ({"DISTILGPT2_XYZZY": "1"}, "unknown setting DISTILGPT2_XYZZY in the environment"),
        (
            {"DISTILGPT2_METRICS_FOLDER": "/tmp"},
            "unknown setting DISTILGPT2_METRICS_FOLDER in the environment: it was removed, because every worker serves",
        ),
        ({"DISTILGPT2_TIMEOUT_S": "nan"}, "DISTILGPT2_TIMEOUT_S (environment) can't be 'nan'"),
        ({"DISTILGPT2_KV_CACHE_BYTES": "much"}, "DISTILGPT2_KV_CACHE_BYTES (environment) can't be 'much'"),
        ({"DISTILGPT2_MAX_NUM_SEQUENCES": "600"}, "max_step_tokens (256) is below max_num_sequences (600)"),
    ],
)
def test_a_bad_value_or_name_is_one_line_that_names_it(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "unknown setting prot (file); did you mean port?"),
        ("port = 'x'", "port (file) can't be 'x'"),
        ("port =", "the settings file {path} (DISTILGPT2_CONFIG_FILE) is not TOML"),
        ("[server]\nport = 1", "unknown setting server (file)"),
        (
            "metrics_folder = '/tmp'",
            "unknown setting metrics_folder (file): it was removed, because every worker serves",
        ),
        ("api_keys = [1]", "api_keys (file): keys must be strings, `name:key` or `key`"),
        ("metrics_api_key = 1", "metrics_api_key (file): a key must be a string"),
        ("cors_origins = 1", "cors_origins (file) can't be 1: origins must be strings"),
        ("cors_origins = ['*', 1]", "cors_origins (file) can't be ['*', 1]: origins must be strings"),
        ("operator_keys = [true]", "operator_keys (file) can't be [True]: names must be strings"),
        ("served_model_names = 1", "served_model_names (file) can't be 1: names must be strings"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(text: str, message: str, config_file: Callable[[str], Path]) -> None:
    path = config_file(text)
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert str(caught.value).startswith(message.format(path=path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILGPT2_CONFIG_FILE", "/nowhere/settings.toml")
    with pytest.raises(SettingsError, match=r"can't read the settings file /nowhere/settings.toml"):
        Settings()


@pytest.mark.parametrize("service", ["DISTILGPT2", "DISTILGPT2_API"])
def test_variables_of_a_kubernetes_service_with_our_name_are_ignored(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "tcp://10.0.0.7:80"
    for name, value in {
        "SERVICE_HOST": "10.0.0.7",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": address,
        "PORT_80_TCP": address,
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_ADDR": "10.0.0.7",
    }.items():
        monkeypatch.setenv(f"{service}_{name}", value)
    assert Settings().port == 8000


def test_the_engine_config_has_numbers_instead_of_auto() -> None:
    config = Settings(precision="bf16", prefix_caching=False).engine_config()
    assert config.precision is Precision.BF16
    assert config.num_threads >= 1
    assert config.kv_cache_bytes > 0
    assert config.is_prefix_caching is False
    explicit = Settings(num_threads=3, kv_cache_bytes="1GiB").engine_config()
    assert (explicit.num_threads, explicit.kv_cache_bytes) == (3, 1 << 30)


@pytest.mark.parametrize(
    ("log_format", "on_a_terminal", "elsewhere"),
    [("auto", False, True), ("json", True, True), ("console", False, False)],
)
def test_logs_are_readable_text_on_a_terminal_by_default(log_format: str, on_a_terminal: bool, elsewhere: bool) -> None:
    settings = Settings(log_format=log_format)
    assert settings.has_json_logs(is_terminal=True) is on_a_terminal
    assert settings.has_json_logs(is_terminal=False) is elsewhere


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_a_user_without_a_home_gets_temporary_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError

    for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert Settings().home != Settings().cache_home
    assert Settings().home.is_absolute()


def test_xdg_folders_are_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Settings().home == tmp_path / "share" / "distilgpt2-api"
    assert Settings().cache_home == tmp_path / "cache" / "distilgpt2-api"


def test_every_setting_is_described_with_default_and_unit() -> None:
    described = {setting.name: setting for setting in Settings(drain_s=2.5, key_tokens_per_s=1_234_567).describe()}
    assert all(setting.description.endswith(".") for setting in described.values())
    assert described["drain_s"].value == "2.5"
    assert described["drain_s"].default == "4"
    assert described["key_tokens_per_s"].value == "1234567"
    assert described["port"].bounds == "0 to 65535"
    assert described["max_body_bytes"].default == "2MiB"
    assert described["num_threads"].value == "auto"


def test_workers_share_what_auto_gives_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is divided by the number of workers; a given value applies to each worker."""
    monkeypatch.setattr("distilgpt2_api.settings.settings.count_usable_cores", lambda: 5)
    monkeypatch.setattr("distilgpt2_api.settings.settings.read_memory_limit_bytes", lambda: 1 << 30)
    alone, two, eight = (Settings(num_workers=number).engine_config() for number in (1, 2, 8))
    assert [config.num_threads for config in (alone, two, eight)] == [5, 2, 1]
    assert [config.kv_cache_bytes >> 20 for config in (alone, two, eight)] == [128, 64, 16]
    explicit = Settings(num_workers=2, num_threads=3, kv_cache_bytes="10MiB").engine_config()
    assert (explicit.num_threads, explicit.kv_cache_bytes >> 20) == (3, 10)


def test_served_names_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILGPT2_SERVED_MODEL_NAMES", "stories, distilgpt2,stories,")
    assert Settings().served_model_names == ("stories", "distilgpt2")
    assert Settings(served_model_names=["a/b"]).served_model_names == ("a/b",)
    with pytest.raises(SettingsError, match=r"served_model_names \(command line\) can't be .*printable"):
        Settings(served_model_names=["a\nb"])
