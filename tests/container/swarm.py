"""Several Docker engines on this machine as the nodes of one Swarm, joined by a virtual switch.

Each has its own network, mounts, processes, images and host name. A node dies like a machine that loses power:
instantly, with all its processes, without closing connections. Needs root, `ip` and `dockerd`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.container.engines import Result, call

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
SUBNET = "198.18.77"
"""Part of the range that is reserved for network tests (RFC 2544)."""
NAMESPACES = "/run/netns"
"""The folder in which `ip` keeps named networks; the first network mounts it."""
HOST_ADDRESS = f"{SUBNET}.254/24"
POLL_S = 0.2

# $1 name, $2 folder, $3 parent of the control groups. The shell is the node's first process and reaps the others.
BOOT = """
hostname "$1"
mkdir -p /etc/docker
mount -t tmpfs tmpfs /etc/docker
dockerd --host "unix://$2/docker.sock" --data-root "$2/images" --exec-root "$2/run" --pidfile "$2/docker.pid" \
    --cgroup-parent "$3" --exec-opt native.cgroupdriver=cgroupfs --no-new-privileges --log-level warn &
wait
"""


def missing() -> str | None:
    """The reason if nodes can't be started on this machine, else None."""
    if os.geteuid() != 0:
        return "only root can start nodes"
    absent = [name for name in ("dockerd", "docker", "ip", "nsenter", "unshare") if not shutil.which(name, path=PATH)]
    if absent:
        return f"there is no {', no '.join(absent)}"
    vxlan = ["ip", "link", "add", "try", "type", "vxlan", "id", "1", "dstport", "4789"]
    result = call(["unshare", "--net", *vxlan], is_checked=False)
    return None if result.returncode == 0 else f"can't create a network namespace with a VXLAN: {result.stderr.strip()}"


def wait_until(is_met: Callable[[], bool], what: str, timeout_s: float) -> float:
    """Wait for a condition; return the seconds that it took."""
    start_s = time.monotonic()
    while not is_met():
        assert time.monotonic() < start_s + timeout_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_S)
    return time.monotonic() - start_s


class Node:
    """One engine. The code that starts it must end it."""

    def __init__(self, number: int, run: str, folder: Path) -> None:
        self.name = f"node{number}"
        self.address = f"{SUBNET}.{number}"
        self._namespace = f"{run}-{number}"
        self._port = f"port{number}"
        self._folder = folder / self.name
        self._control_groups = f"/{run}-{number}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, switch: str) -> None:
        self._folder.mkdir()
        call(["ip", "netns", "add", self._namespace])
        ends = ["eth0", "netns", self._namespace, "type", "veth", "peer", "name", self._port, "netns", switch]
        call(["ip", "link", "add", *ends])
        call(["ip", "-n", switch, "link", "set", self._port, "master", "bridge", "up"])
        call(["ip", "-n", self._namespace, "address", "add", f"{self.address}/24", "dev", "eth0"])
        for link in ("lo", "eth0"):
            call(["ip", "-n", self._namespace, "link", "set", link, "up"])
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("nsenter", f"--net={NAMESPACES}/{self._namespace}"),
                    *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("sh", "-euc", BOOT, "-", self.name, str(self._folder), self._control_groups),
                ],
                env={**os.environ, "PATH": PATH},
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"{self.name}'s dockerd answers\n{self.log()}", 60)

    def docker(self, *arguments: str, timeout_s: float = 120, environment: Mapping[str, str] | None = None) -> Result:
        result = subprocess.run(
            ["docker", *arguments],
            env={"PATH": _client_path(), "DOCKER_HOST": f"unix://{self._folder}/docker.sock", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert result.returncode == 0, f"docker {' '.join(arguments)}\n{result.stdout}{result.stderr}"
        return result

    def log(self) -> str:
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def cut_off(self, switch: str) -> None:
        """Cut power and network at the same time."""
        call(["ip", "-n", switch, "link", "set", self._port, "down"])
        self._kill()

    def end(self) -> None:
        """End the node; leave no process, mount, network, control group or file. Idempotent."""
        self._kill()
        call(["ip", "netns", "delete", self._namespace], is_checked=False)
        # Version 1 has a tree for each controller, version 2 one tree for all.
        for root in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
            top = root / self._control_groups.strip("/")
            for group in sorted((path for path in top.glob("**/") if top.is_dir()), reverse=True):
                group.rmdir()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kill(self) -> None:
        """Kill the first process of the process namespace, which ends all others before itself."""
        if self._process is not None:
            parent = self._process.pid
            for child in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split():
                os.kill(int(child), signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended:\n{self.log()}"
        try:
            self.docker("info")
        except AssertionError:
            return False
        return True


class Swarm:
    """Joined nodes. All of them are managers, so that any one may fail."""

    def __init__(self, nodes: list[Node], switch: str) -> None:
        self.nodes = nodes
        self._switch = switch

    @property
    def manager(self) -> Node:
        return self.nodes[0]

    def lose(self, node: Node) -> None:
        self.nodes.remove(node)
        node.cut_off(self._switch)

    def running_tasks(self, service: str) -> list[dict[str, Any]]:
        """Running tasks on live nodes."""
        lines = self.manager.docker(
            *("service", "ps", service, "--filter", "desired-state=running", "--format", "{{json .}}", "--no-trunc")
        ).stdout.splitlines()
        here = {node.name for node in self.nodes}
        tasks = [json.loads(line) for line in lines]
        return [task for task in tasks if task["CurrentState"].startswith("Running") and task["Node"] in here]

    def update_state(self, service: str) -> str:
        form = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}"
        return self.manager.docker("service", "inspect", "--format", form, service).stdout.strip()


@contextmanager
def swarm_of(num_nodes: int, folder: Path) -> Iterator[Swarm]:
    run = f"swarm-{uuid.uuid4().hex[:4]}"
    switch, host_link = f"{run}-0", f"{run}-h"
    with ExitStack() as stack:
        if not _is_mounted(NAMESPACES):
            stack.callback(call, ["umount", NAMESPACES])
        call(["ip", "netns", "add", switch])
        stack.callback(call, ["ip", "netns", "delete", switch], is_checked=False)
        call(["ip", "-n", switch, "link", "add", "bridge", "type", "bridge"])
        call(["ip", "-n", switch, "link", "set", "bridge", "up"])
        call(["ip", "link", "add", host_link, "type", "veth", "peer", "name", "host", "netns", switch])
        stack.callback(call, ["ip", "link", "delete", host_link])
        call(["ip", "-n", switch, "link", "set", "host", "master", "bridge", "up"])
        call(["ip", "address", "add", HOST_ADDRESS, "dev", host_link])
        call(["ip", "link", "set", host_link, "up"])
        nodes = [Node(number, run, folder) for number in range(1, num_nodes + 1)]
        for node in nodes:
            stack.callback(node.end)
            node.start(switch)
        first, *others = nodes
        first.docker("swarm", "init", "--advertise-addr", first.address)
        token = first.docker("swarm", "join-token", "--quiet", "manager").stdout.strip()
        for node in others:
            node.docker("swarm", "join", "--token", token, "--advertise-addr", node.address, f"{first.address}:2377")
        yield Swarm(nodes, switch)


def _is_mounted(path: str) -> bool:
    return any(line.split()[1] == path for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines())


def _client_path() -> str:
    """PATH with the client of the daemon's package first, as with-engine.sh and Debian install it."""
    return f"/usr/bin:{PATH}"
