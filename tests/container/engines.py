"""Container engines behind one interface: start an image with options, run commands in it, stop it, clean up.

Docker is the running engine (`make test-container` starts a private one if none runs). Podman and Apptainer get the
image as an archive of `docker save`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tarfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.container.http import READY_TIMEOUT_S, is_ready

NAME_PREFIX = "distilgpt2-api-test-"
Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of `docker run`; Apptainer, which runs as its caller, ignores most."""

    flags: Sequence[str] = ()
    environment: Mapping[str, str] | None = None
    is_offline: bool = False
    """`--network none`: only `execute` can reach it."""
    is_on_host_network: bool = False
    """`--network host`; always the case on Apptainer."""
    mounts: Sequence[str] = ()
    """Options that mount something, in the engine's own syntax; `Engine.with_model` gives them."""


SECCOMP_PROFILE = Path(__file__).parents[2] / "docker" / "seccomp.json"
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")


def call(command: Sequence[str], *, timeout_s: float = 120, is_checked: bool = True) -> Result:
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if is_checked and result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return result


@contextmanager
def exported_root(image: str, folder: Path) -> Iterator[tarfile.TarFile]:
    """The files of Docker's image, whose archive is written to `folder`."""
    path = folder / "root.tar"
    container = call(["docker", "create", image, "never-runs"]).stdout.strip()
    try:
        call(["docker", "export", "--output", str(path), container])
    finally:
        call(["docker", "rm", container])
    with tarfile.open(path) as archive:
        yield archive


class Container(ABC):
    """A running service. The code that starts it must remove it."""

    port: int
    """The service's port on 127.0.0.1."""

    @abstractmethod
    def execute(self, *command: str) -> Result:
        """Run a command inside the container."""

    @abstractmethod
    def log(self) -> str: ...

    @abstractmethod
    def stop(self, timeout_s: int) -> int:
        """Stop the container, kill it after `timeout_s`, and return the exit status."""

    @abstractmethod
    def has_ended(self) -> bool: ...

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_ready(self.port):
            assert not self.has_ended(), f"the container ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"not ready after {timeout_s} s:\n{self.log()}"
            time.sleep(0.02)


class Engine(ABC):
    name: str

    @abstractmethod
    def missing(self) -> str | None:
        """The reason if the engine is not available on this machine, else None."""

    @abstractmethod
    def load(self, image: str) -> None:
        """Load Docker's image `image` into this engine. Idempotent."""

    @abstractmethod
    def start(self, image: str, options: Options) -> Container: ...

    @abstractmethod
    def remove(self, container: Container) -> None: ...

    @abstractmethod
    def run(self, image: str, *command: str, options: Options | None = None, timeout_s: float = 60) -> Result:
        """Run a command, or the image's own, and wait for its end."""

    @abstractmethod
    def with_model(self, model_image: str) -> AbstractContextManager[Options]:
        """Mounts the model of Docker's image `model_image` into the containers that start with these options."""

    @contextmanager
    def running(self, image: str, options: Options | None = None) -> Iterator[Container]:
        container = self.start(image, options or Options())
        try:
            yield container
        finally:
            self.remove(container)


class DockerLikeContainer(Container):
    def __init__(self, command: Sequence[str], name: str, port: int) -> None:
        self._command = command
        self.name = name
        self.port = port

    def execute(self, *command: str) -> Result:
        return call([*self._command, "exec", self.name, *command], is_checked=False)

    def log(self) -> str:
        result = call([*self._command, "logs", self.name], is_checked=False)
        return result.stdout + result.stderr

    def stop(self, timeout_s: int) -> int:
        call([*self._command, "stop", "-t", str(timeout_s), self.name])
        return int(self._inspect("{{.State.ExitCode}}"))

    def has_ended(self) -> bool:
        return self._inspect("{{.State.Running}}") != "true"

    def _inspect(self, form: str) -> str:
        return call([*self._command, "inspect", "--format", form, self.name]).stdout.strip()


class DockerLike(Engine):
    """An engine with Docker's command line, which Podman shares."""

    command: Sequence[str] = ()
    run_flags: Sequence[str] = ()

    def start(self, image: str, options: Options) -> Container:
        name = f"{NAME_PREFIX}{uuid.uuid4().hex[:8]}"
        port = 0 if options.is_offline else free_port()
        call([*self.command, "run", "--detach", "--name", name, *self._flags(options, port), self.reference(image)])
        return DockerLikeContainer(self.command, name, port)

    def remove(self, container: Container) -> None:
        assert isinstance(container, DockerLikeContainer)
        call([*self.command, "rm", "--force", container.name])

    def run(self, image: str, *command: str, options: Options | None = None, timeout_s: float = 60) -> Result:
        name = f"{NAME_PREFIX}{uuid.uuid4().hex[:8]}"
        flags = self._flags(options or Options(is_offline=True), free_port())
        try:
            return call(
                [*self.command, "run", "--name", name, *flags, self.reference(image), *command],
                timeout_s=timeout_s,
                is_checked=False,
            )
        finally:
            call([*self.command, "rm", "--force", name], is_checked=False)

    def reference(self, image: str) -> str:
        return image

    def _flags(self, options: Options, port: int) -> list[str]:
        if options.is_on_host_network:
            network = ["--network=host"]
        else:
            network = ["--network=none"] if options.is_offline else self.publish(port)
        environment = [f"--env={name}={value}" for name, value in (options.environment or {}).items()]
        # Each test also shows that the profile refuses no call that the service needs.
        profile = f"--security-opt=seccomp={SECCOMP_PROFILE}"
        return [*self.run_flags, profile, *network, *environment, *options.flags, *options.mounts]

    @abstractmethod
    def publish(self, port: int) -> list[str]: ...


class Docker(DockerLike):
    name = "docker"
    command = ("docker",)

    def missing(self) -> str | None:
        if shutil.which("docker") is None:
            return "there is no docker"
        if call(["docker", "info"], is_checked=False).returncode != 0:
            return "no Docker engine answers"
        return None

    def load(self, image: str) -> None:
        pass

    @contextmanager
    def with_model(self, model_image: str) -> Iterator[Options]:
        """As a volume that Docker fills from the image: before version 28 it can't mount an image."""
        volume = f"{NAME_PREFIX}{uuid.uuid4().hex[:8]}"
        container = call(["docker", "create", f"--volume={volume}:/models", model_image, "never-runs"]).stdout.strip()
        call(["docker", "rm", container])
        try:
            yield Options(mounts=(f"--volume={volume}:/opt/models:ro",))
        finally:
            call(["docker", "volume", "rm", volume])

    def publish(self, port: int) -> list[str]:
        return [f"--publish=127.0.0.1:{port}:8000"]


class Podman(DockerLike):
    """Podman, with images and containers in a separate folder."""

    name = "podman"
    # Some kernels mix the two versions of control groups, which crun refuses; limits above the caller's fail.
    run_flags = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--read-only-tmpfs=false")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        runc = shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        self.command = (
            *("podman", "--root", str(folder / "images"), "--runroot", str(folder / "run")),
            *("--tmpdir", str(folder / "tmp")),
            *(("--runtime", runc) if runc else ()),
            "--cgroup-manager=cgroupfs",
        )

    def missing(self) -> str | None:
        if shutil.which("podman") is None:
            return "there is no podman (Debian: apt-get install podman runc)"
        result = call([*self.command, "info"], is_checked=False)
        return None if result.returncode == 0 else f"podman info: {result.stderr.strip().splitlines()[-1]}"

    def load(self, image: str) -> None:
        if call([*self.command, "image", "exists", self.reference(image)], is_checked=False).returncode == 0:
            return
        archive = self._folder / "image.tar"
        call(["docker", "save", "--output", str(archive), image], timeout_s=300)
        call([*self.command, "load", "--quiet", "--input", str(archive)], timeout_s=300)
        archive.unlink()

    def reference(self, image: str) -> str:
        return f"localhost/{image}"

    def publish(self, port: int) -> list[str]:
        # The host's network: Podman's own needs plugins that minimal systems lack. This also tests $PORT.
        return ["--network=host", f"--env=PORT={port}", "--env=DISTILGPT2_HOST=127.0.0.1"]

    @contextmanager
    def with_model(self, model_image: str) -> Iterator[Options]:
        """As an image mount, of the whole image: only newer versions can mount a folder of one."""
        self.load(model_image)
        yield Options(mounts=(f"--mount=type=image,source={self.reference(model_image)},destination=/opt/models",))

    def close(self) -> None:
        call([*self.command, "rm", "--all", "--force"], is_checked=False)
        call([*self.command, "rmi", "--all", "--force"], is_checked=False, timeout_s=300)
        # Podman leaves its control groups behind; a group with a process in it stays.
        for group in [*Path("/sys/fs/cgroup").glob("libpod_parent"), *Path("/sys/fs/cgroup").glob("*/libpod_parent")]:
            call(["sh", "-c", 'rmdir "$1"/*/ "$1"', "-", str(group)], is_checked=False)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port
