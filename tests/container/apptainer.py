"""Apptainer: an unprivileged user without home and without the machine's /tmp, on the machine's network."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.container.engines import Container, Engine, Options, Result, call, free_port

DOCKER_FOLDER = Path(__file__).parents[2] / "docker"


class ApptainerContainer(Container):
    def __init__(self, process: subprocess.Popen[bytes], engine: Apptainer, image: str, log: Path, port: int) -> None:
        self.process = process
        self._engine = engine
        self._image = image
        self._log = log
        self.port = port

    def execute(self, *command: str) -> Result:
        return self._engine.run(self._image, *command)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self, timeout_s: int) -> int:
        os.kill(_gunicorn_below(self.process.pid), signal.SIGTERM)
        try:
            return self.process.wait(timeout_s + 5)  # the sandbox is removed afterwards
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def has_ended(self) -> bool:
        return self.process.poll() is not None


class Apptainer(Engine):
    """Runs `docker/apptainer.sh`: the machine's own Apptainer, or Debian unstable's."""

    name = "apptainer"
    user = "nobody"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._why_not: str | None = None
        self._is_checked = False

    def missing(self) -> str | None:
        if not self._is_checked:
            self._is_checked = True
            result = call(self._command("root", "version"), timeout_s=600, is_checked=False)
            if result.returncode != 0:
                self._why_not = (result.stderr.strip().splitlines() or ["it does not start"])[-1]
        return self._why_not

    def load(self, image: str) -> None:
        # With zstd the build and especially the start are faster than with the default.
        self._build(image, self._file(image), "--mksquashfs-args", "-comp zstd -Xcompression-level 3")

    def _build(self, image: str, target: str, *flags: str) -> None:
        if (self._folder / target).exists():
            return
        archive = self._folder / "image.tar"
        call(["docker", "save", "--output", str(archive), image], timeout_s=300)
        archive.chmod(0o644)
        call(self._command("root", "build", *flags, target, f"docker-archive:{archive.name}"), timeout_s=600)
        archive.unlink()

    def start(self, image: str, options: Options) -> Container:
        port = free_port()
        environment = {"PORT": str(port), "DISTILGPT2_HOST": "127.0.0.1", **(options.environment or {})}
        log = self._folder / f"{uuid.uuid4().hex[:8]}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self._command(self.user, "run", *self._flags(options, environment), self._file(image)),
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        return ApptainerContainer(process, self, image, log, port)

    def remove(self, container: Container) -> None:
        assert isinstance(container, ApptainerContainer)
        if container.process.poll() is None:
            container.stop(10)

    def run(self, image: str, *command: str, options: Options | None = None, timeout_s: float = 60) -> Result:
        options = options or Options()
        action = "exec" if command else "run"
        return call(
            self._command(
                self.user, action, *self._flags(options, options.environment or {}), self._file(image), *command
            ),
            timeout_s=timeout_s,
            is_checked=False,
        )

    def _command(self, user: str, *arguments: str) -> list[str]:
        return [str(DOCKER_FOLDER / "apptainer.sh"), str(self._folder), user, *arguments]

    @contextmanager
    def with_model(self, model_image: str) -> Iterator[Options]:
        """As a bind mount of a folder of the unpacked image: only files of data, not of containers, can be bound."""
        folder = model_image.replace(":", "-")
        self._build(model_image, folder, "--sandbox")
        yield Options(mounts=("--bind", f"{folder}/models:/opt/models"))

    def _flags(self, options: Options, environment: Mapping[str, str]) -> list[str]:
        flags = ["--containall", "--no-home", *options.mounts]
        for name, value in environment.items():
            flags += ["--env", f"{name}={value}"]
        return flags

    def _file(self, image: str) -> str:
        return f"{image.replace(':', '-')}.sif"


def _gunicorn_below(process_id: int) -> int:
    """The process id of the first Gunicorn below a process: the master."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    queue = [process_id]
    for candidate in queue:
        arguments = Path(f"/proc/{candidate}/cmdline").read_bytes().split(b"\0")
        if any(Path(os.fsdecode(argument)).name == "gunicorn" for argument in arguments[:2]):
            return candidate
        queue.extend(sorted(children.get(candidate, [])))
    raise AssertionError(f"no Gunicorn below process {process_id}")
