"""What can't work ends at once, in one clear line and with an exit status that isn't 0."""

from __future__ import annotations

import os
import socket

import pytest
from tests.container.engines import HARDENED, Engine, Options, Result
from tests.container.http import complete


def the_error(result: Result) -> str:
    """The one line that begins with `error:`."""
    assert result.returncode != 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stdout + result.stderr
    return errors[0]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PORT": "abc"}, "PORT (environment) can't be 'abc'"),
        ({"PORT": "65536"}, "PORT (environment) can't be '65536'"),
        ({"DISTILGPT2_PRECISION": "int3"}, "DISTILGPT2_PRECISION (environment) can't be 'int3'"),
        ({"DISTILGPT2_MODEL": "/nowhere"}, "no folder /nowhere"),
        ({"DISTILGPT2_MODLE": "x"}, "unknown setting DISTILGPT2_MODLE in the environment; did you mean"),
    ],
)
def test_a_bad_setting(engine: Engine, image: str, environment: dict[str, str], words: str) -> None:
    assert words in the_error(engine.run(image, options=Options(environment=environment, is_offline=True)))


def test_a_precision_that_the_image_was_not_built_for(engine: Engine, image: str) -> None:
    options = Options(environment={"DISTILGPT2_PRECISION": "bf16"}, is_offline=True)
    assert "compiled for precision int8; bf16 needs the checkpoint" in the_error(engine.run(image, options=options))


def test_a_taken_port(engine: Engine, image: str) -> None:
    """On the machine's network, where somebody else may have it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {"PORT": str(port), "DISTILGPT2_HOST": "127.0.0.1"}
        result = engine.run(image, options=Options(environment=environment, is_on_host_network=True))
        assert f"can't listen on 127.0.0.1 port {port}: Address already in use" in the_error(result)


def test_a_model_that_does_not_fit_the_memory(engine: Engine, image: str) -> None:
    if engine.name == "apptainer":
        pytest.skip("apptainer: limits take systemd and control groups version 2")
    result = engine.run(image, options=Options(flags=("--memory=64m", "--memory-swap=64m"), is_offline=True))
    assert "memory limit" in the_error(result)


def test_no_folder_for_the_heartbeat(engine: Engine, image: str) -> None:
    """A disk that can't be written and no /dev/shm: nowhere for the file that tells Gunicorn that its worker lives."""
    if engine.name == "apptainer":
        pytest.skip("apptainer: /dev/shm is always there")
    result = engine.run(image, options=Options(flags=(*HARDENED, "--ipc=none"), is_offline=True))
    assert "/dev/shm" in the_error(result)


def test_without_shared_memory_a_temporary_folder_will_do(engine: Engine, image: str) -> None:
    if engine.name == "apptainer":
        pytest.skip("apptainer: /dev/shm is always there")
    with engine.running(image, Options(flags=("--read-only", "--tmpfs=/tmp", "--ipc=none"))) as service:
        service.wait_until_ready()
        assert complete(service.port, max_tokens=2, ignore_eos=True)["usage"]["completion_tokens"] == 2


def test_a_user_that_nobody_knows_serves(engine: Engine, image: str) -> None:
    if engine.name == "apptainer":
        pytest.skip("apptainer: whoever calls it is known")
    assert os.getuid() != 4242
    with engine.running(image, Options(flags=("--user=4242:4242",))) as service:
        service.wait_until_ready()
        assert complete(service.port, max_tokens=2, ignore_eos=True)["usage"]["completion_tokens"] == 2
