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
OLLAMA = """
from ollama import Client, Options, ResponseError

client = Client(host="http://localhost:8000")
[model] = client.list().models
shown, [running] = client.show(model.model), client.ps().models
print(model.model, shown.modelinfo["gpt2.context_length"], running.context_length, running.expires_at.year)
schema = {"type": "object", "properties": {"legs": {"enum": [2, 4]}}, "required": ["legs"]}
first = client.generate(model.model, "A wolf:", format=schema, options=Options(num_predict=20, seed=1, temperature=0.0))
print(first.response, first.done_reason, first.total_duration >= first.eval_duration > 0)
print(client.generate(model.model, " And", context=first.context, raw=False, keep_alive="5m").done)
print(client.generate(model.model).done_reason, client.chat(model.model).done_reason)
for call in (lambda: client.pull("llama3.2"), lambda: client.embed(model.model, "a"), lambda: client.show("llama3.2")):
    try:
        call()
    except ResponseError as error:
        print(error.status_code, error.error)
"""
OLLAMA_JS = """
import { Ollama } from "ollama";

const client = new Ollama({ host: "http://localhost:8000" });
const [{ model }] = (await client.list()).models;
const shown = await client.show({ model });
const [running, { version }] = [(await client.ps()).models, await client.version()];
console.log(model, shown.model_info["gpt2.context_length"], running.length, typeof version);
console.log((await client.generate({ model, prompt: "" })).done_reason);
const messages = [{ role: "user", content: "Once" }];
const stream = await client.chat({ model, messages, stream: true, format: "json" });
for await (const part of stream) {
  if (part.message.content) break;
}
stream.abort();
for (const call of [() => client.pull({ model: "llama3.2" }), () => client.embed({ model, input: "a" })]) {
  await call().catch((error) => console.log(error.status_code, error.message));
}
"""
FRAMEWORKS = """
from typing import Literal

from langchain_ollama import ChatOllama, OllamaLLM
from llama_index.core.llms import ChatMessage
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel, ConfigDict


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")

    legs: Literal[2, 4]


url = "http://localhost:8000"
llm = OllamaLLM(base_url=url, model="storyteller", num_predict=20, temperature=0.5, top_k=5, seed=1, stop=["zz"])
print(len("".join(llm.stream("Once upon a time"))) > 20)
chat = ChatOllama(
    base_url=url, model="storyteller", num_predict=20, temperature=0, keep_alive="5m", logprobs=True, top_logprobs=2
)
answer = chat.invoke("Once upon a time")
print(answer.usage_metadata["output_tokens"], answer.response_metadata["done_reason"])
form = ChatOllama(base_url=url, model="storyteller").with_structured_output(Form, method="json_schema")
print(form.invoke("A wolf?"))
index = Ollama(base_url=url, model="storyteller", temperature=0, additional_kwargs={"num_predict": 20})
print(index.metadata.context_window, index.as_structured_llm(Form).complete("A wolf?").raw)
print(len([part.delta for part in index.stream_chat([ChatMessage("Once upon a time")])]) > 5)
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
    names = ["@huggingface/inference", "@ai-sdk", "litellm", "langchain", "llama_index"]
    names += ["from ollama", 'from "ollama"', "langchain_ollama", "instructor"]
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


def test_ollamas_python_client_reads_the_model_and_the_errors(run: Callable[[str, str], str]) -> None:
    model, first, *rest, pull, embed, show = run("python", OLLAMA).splitlines()
    assert model == "storyteller:latest 512 512 9999"
    assert first in {'{"legs": 2} stop True', '{"legs": 4} stop True'}
    assert rest == ["True", "load load"]
    assert "404 no such URL: POST /api/pull; models can't be changed over HTTP" in pull
    assert "404 no such URL: POST /api/embed; this model makes no embeddings" in embed
    assert "404 the model 'llama3.2' does not exist here; served: 'storyteller'" in show


def test_ollamas_javascript_client_reads_the_model_and_the_errors(run: Callable[[str, str], str]) -> None:
    model, load, pull, embed = run("js", OLLAMA_JS).splitlines()
    assert (model, load) == ("storyteller:latest 512 1 string", "load")
    assert "404 no such URL: POST /api/pull" in pull
    assert "404 no such URL: POST /api/embed" in embed


def test_frameworks_with_ollamas_client_stream_and_fill_forms(run: Callable[[str, str], str]) -> None:
    streamed, usage, form, window, parts = run("python", FRAMEWORKS).splitlines()
    assert (streamed, usage, parts) == ("True", "20 length", "True")
    assert form in {"legs=2", "legs=4"}
    assert window in {"512 legs=2", "512 legs=4"}
