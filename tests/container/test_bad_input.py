"""An invalid configuration ends the container at once, with a one-line error and its exit status."""

from __future__ import annotations

import json
import os
import socket

import pytest
from tests.container.engines import HARDENED, Engine, Options, Result
from tests.container.http import complete

from distilgpt2_api.core.exit_status import EXIT_MODEL, EXIT_SETTINGS


def the_error(result: Result) -> str:
    """The event of the service's only line, which is JSON. The engine's own lines are not."""
    assert result.returncode in (EXIT_MODEL, EXIT_SETTINGS), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("{")]
    event = json.loads(line)["event"]
    assert isinstance(event, str)
    return event


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
    """On the machine's network another program may use the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {"PORT": str(port), "DISTILGPT2_HOST": "127.0.0.1"}
        result = engine.run(image, options=Options(environment=environment, is_on_host_network=True))
        assert f"can't listen on 127.0.0.1 port {port}: Address already in use" in the_error(result)


def test_a_model_that_does_not_fit_the_memory(engine: Engine, image: str) -> None:
    if engine.name == "apptainer":
        pytest.skip("apptainer: limits need systemd and control groups version 2")
    result = engine.run(image, options=Options(flags=("--memory=64m", "--memory-swap=64m"), is_offline=True))
    assert "memory limit" in the_error(result)


def test_no_folder_for_the_heartbeat(engine: Engine, image: str) -> None:
    """A read-only disk and no /dev/shm: no folder for the heartbeat file of Gunicorn's worker."""
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


def test_an_unknown_user_id_serves(engine: Engine, image: str) -> None:
    if engine.name == "apptainer":
        pytest.skip("apptainer: the process has its caller's user id")
    assert os.getuid() != 4242
    with engine.running(image, Options(flags=("--user=4242:4242",))) as service:
        service.wait_until_ready()
        assert complete(service.port, max_tokens=2, ignore_eos=True)["usage"]["completion_tokens"] == 2
