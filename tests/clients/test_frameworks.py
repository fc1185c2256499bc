"""The programs of docs/clients.md that need packages outside the lock, run with another address."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clients.conftest import MODEL
from tests.docs.blocks import ROOT, Block, command_blocks

TOOLS = ROOT / ".tools"
COMMANDS: dict[str, list[str]] = {
    "python": [str(TOOLS / "frameworks" / "bin" / "python"), "-c"],
    "js": ["node", "--input-type=module", "--eval"],
}
PROGRAMS = [
    block
    for block in command_blocks(ROOT / "docs" / "clients.md")
    if block.language in COMMANDS and "tests/clients runs it" in (block.reason or "")
]
SDK = """
import { createOpenAI } from "@ai-sdk/openai";
import { generateText } from "ai";

const openai = createOpenAI({ baseURL: "http://localhost:8000/v1", apiKey: "none" });
const ask = (model) => generateText({ model, prompt: "Once upon a time", maxOutputTokens: 60, maxRetries: 0 });
console.log((await ask(openai.completion("storyteller"))).text, (await ask(openai.chat("storyteller"))).text);
await ask(openai("storyteller")).catch((error) => console.log(error.message));
"""
PARAMETERS = """
import { InferenceClient } from "@huggingface/inference";

const client = new InferenceClient("none", { endpointUrl: "http://localhost:8000" });
const parameters = {
  max_new_tokens: 60, do_sample: true, temperature: 0.8, top_k: 5, top_p: 0.9, repetition_penalty: 1.1,
  return_full_text: true, details: true, stop_sequences: ["zz"], watermark: false,
};
console.log((await client.textGeneration({ inputs: "Once upon a time", parameters })).generated_text);
"""
LITELLM = """
import litellm

try:
    litellm.responses(model="openai/storyteller", input="Once", api_base="http://localhost:8000/v1", api_key="none")
except litellm.NotFoundError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def chat_server(launch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The bundled model with a chat template."""
    template = tmp_path_factory.mktemp("template") / "chat.jinja"
    template.write_text("{% for message in messages %}{{ message.content }} {% endfor %}")
    server = launch("serve", model=MODEL, chat_template=template)
    server.wait_listening()
    server.wait_ready()
    return server


@pytest.fixture
def run(chat_server: Any, tmp_path: Path) -> Callable[[str, str], str]:
    """Runs a program and returns its output."""
    url: str = chat_server.url

    def run(language: str, program: str) -> str:
        environment = {"LANGSMITH_TRACING": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(tmp_path)}
        done = subprocess.run(
            [*COMMANDS[language], program.replace("http://localhost:8000", url)],
            # Node looks for packages here.
            cwd=TOOLS / "npm" if language == "js" else tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_documentation_shows_every_client() -> None:
    names = ["@huggingface/inference", "@ai-sdk", "litellm", "langchain", "llama_index", "instructor"]
    assert [name in block.text for name, block in zip(names, PROGRAMS, strict=True)] == [True] * len(names)


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.name)
def test_the_program_prints_a_completion(run: Callable[[str, str], str], block: Block) -> None:
    assert len(run(block.language, block.text).split()) > 10


@pytest.mark.reported("users of @huggingface/inference, which posts TGI's parameters to /v1/completions")
def test_tgis_parameters_are_accepted(run: Callable[[str, str], str]) -> None:
    printed = run("js", PARAMETERS)
    assert printed.startswith("Once upon a time")
    assert len(printed.split()) > 20


@pytest.mark.reported("users of the AI SDK and of litellm, which use /v1/responses by default")
@pytest.mark.parametrize(("language", "program"), [("js", SDK), ("python", LITELLM)])
def test_a_client_of_the_responses_api_gets_the_list_of_routes(
    run: Callable[[str, str], str], language: str, program: str
) -> None:
    printed = run(language, program)
    assert "no such URL: POST /v1/responses; there are /v1/completions, /v1/chat/completions" in printed
    assert len(printed.split()) > (40 if language == "js" else 10)
