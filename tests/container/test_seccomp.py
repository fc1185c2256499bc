"""docker/seccomp.json refuses the system calls that the service does not make.

All containers of these tests run under it on Docker and Podman, so every other test proves that it refuses no call that
the service needs.
"""

from __future__ import annotations

import json

import pytest
from tests.container.engines import HARDENED, SECCOMP_PROFILE, Engine, Options
from tests.container.http import complete

PROGRAM = """
import ctypes, errno, json, platform, socket, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
numbers = {"x86_64": (272, 165, 101, 435, 425, 321, 56), "aarch64": (97, 40, 117, 435, 425, 280, 220)}
names = ("unshare", "mount", "ptrace", "clone3", "io_uring_setup", "bpf", "clone")
arguments = {"unshare": (0x10000000,), "clone": (0x10000000 | 17, 0)}
errors = {}
for name, number in zip(names, numbers[platform.machine()]):
    padded = (*arguments.get(name, ()), 0, 0, 0, 0, 0)[:5]
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, padded)) == 0 and name == "clone":
        sys.exit()  # the child
    errors[name] = errno.errorcode.get(ctypes.get_errno())
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
except OSError as error:
    errors["AF_PACKET"] = errno.errorcode[error.errno]
thread = threading.Thread(target=errors.update, args=({"thread": None},))
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", ""], check=True)
print(json.dumps(errors))
"""
"""Makes calls that the profile refuses, then starts a thread and a process, which it must allow."""
REFUSED = {"ENOSYS", "EPERM"}
"""Engines before Docker 23 have one error number for all calls that no rule names."""


def test_calls_of_an_intruder_are_refused(engine: Engine, image: str) -> None:
    if engine.name == "apptainer":
        pytest.skip("apptainer: its profiles can't give one call another error number")
    result = engine.run(image, "python", "-c", PROGRAM)
    assert result.returncode == 0, result.stderr
    errors = json.loads(result.stdout)
    assert errors.pop("thread", "no thread ran") is None
    assert set(errors.values()) <= REFUSED, errors
    assert len(errors) == 8
    # Only this number makes glibc use clone.
    assert errors["clone3"] == "ENOSYS"


def test_the_profile_is_loaded(engine: Engine, image: str) -> None:
    if engine.name == "apptainer":
        pytest.skip("apptainer: its profiles can't give one call another error number")
    with engine.running(image) as container:
        container.wait_until_ready()
        program = "print(*[line for line in open('/proc/1/status') if line.startswith('Seccomp:')])"
        assert container.execute("python", "-c", program).stdout.split() == ["Seccomp:", "2"]


def test_without_the_right_to_new_privileges_it_serves_as_well(engine: Engine, each_image: str) -> None:
    """The runtime then loads the profile at another moment, and makes other calls under it."""
    if engine.name == "apptainer":
        pytest.skip("apptainer: its profiles can't give one call another error number")
    engine.load(each_image)
    with engine.running(each_image, Options(flags=HARDENED)) as container:
        container.wait_until_ready()
        assert complete(container.port, max_tokens=4, ignore_eos=True)["usage"]["completion_tokens"] == 4


def test_the_profile_names_each_call_once_and_in_order() -> None:
    profile = json.loads(SECCOMP_PROFILE.read_text(encoding="utf-8"))
    rules = profile["syscalls"]
    plain = [
        name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule for name in rule["names"]
    ]
    assert len(plain) == len(set(plain))
    assert all(rule["names"] == sorted(rule["names"]) for rule in rules)
    limited = {name for rule in rules if "args" in rule for name in rule["names"]}
    assert limited == {"clone", "socket"}
    assert not limited & set(plain)
    dangerous = "bpf io_uring_setup keyctl mount ptrace process_vm_readv setns unshare userfaultfd"
    assert not set(dangerous.split()) & set(plain)
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
