// A request as code, for a terminal or a program. The key is a variable, never shown.

import { ROOT } from "./api.js";
import { find, make } from "./dom.js";
import { withoutOwn } from "./requests.js";

/** The arguments of OpenAI's client. Other fields go into its `extra_body`. */
const OPENAI = new Set(["model", "prompt", "messages", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs",
  "max_tokens", "max_completion_tokens", "n", "presence_penalty", "seed", "stop", "stream", "temperature", "top_p"]);
const IDS_PER_LINE = 14;
const IDS_NOTE = "# The prompt is token ids: exactly those that the model saw, with the token that you chose.\n";
const JSON_STYLE = { null: "null", true: "true", false: "false", tab: "  ", end: "" };
const PYTHON_STYLE = { null: "None", true: "True", false: "False", tab: "    ", end: "," };

const quoteShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const isLongIds = (value) => value.length > IDS_PER_LINE && value.every(Number.isInteger);

/** A JSON value as code: objects and long lists of ids over several lines. */
function write(value, style, indent = "") {
  const inner = indent + style.tab;
  if (value === null || typeof value === "boolean") return style[value];
  if (typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value) && !isLongIds(value)) return `[${value.map((item) => write(item, style, inner)).join(", ")}]`;
  const lines = Array.isArray(value)
    ? Array.from({ length: Math.ceil(value.length / IDS_PER_LINE) }, (_, at) => value.slice(at * IDS_PER_LINE).slice(0, IDS_PER_LINE).join(", "))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${write(item, style, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return `${open}\n${inner}${lines.join(`,\n${inner}`)}${style.end}\n${indent}${close}`;
}

const curl = (body, path, hasKey) => curlOf(body, `v1/${path}`, hasKey);

function curlOf(body, path, hasKey) {
  const lines = [`curl ${body.stream ? "-N " : ""}${quoteShell(`${ROOT.href}${path}`)}`, "-H 'Content-Type: application/json'"];
  if (hasKey) lines.push('-H "Authorization: Bearer $KEY"');
  return `${[...lines, `-d ${quoteShell(write(body, JSON_STYLE))}`].join(" \\\n  ")}\n`;
}

function python(body, path, hasKey) {
  const isKnown = ([name]) => OPENAI.has(name);
  const items = Object.entries(body);
  const others = items.filter((item) => !isKnown(item));
  const lines = items.filter(isKnown).map(([name, value]) => `    ${name}=${write(value, PYTHON_STYLE, "    ")},\n`);
  if (others.length) lines.push(`    extra_body=${write(Object.fromEntries(others), PYTHON_STYLE, "    ")},\n`);
  const [whole, part] = path === "completions" ? ["text", "text"] : ["message.content", 'delta.content or ""'];
  const print = body.stream
    ? `for event in answer:\n    for choice in event.choices:\n        print(choice.${part}, end="", flush=True)\n`
    : `for choice in answer.choices:\n    print(choice.${whole})\n`;
  return `${hasKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(`${ROOT.href}v1`)}, api_key=${hasKey ? 'os.environ["KEY"]' : '"none"'})
answer = client.${path.replace("/", ".")}.create(
${lines.join("")})
${print}`;
}

/** Ollama's names of this service's parameters, where they differ. */
const RENAMED = { max_tokens: "num_predict", max_completion_tokens: "num_predict", repetition_penalty: "repeat_penalty" };
const OLLAMA = /^(num_predict|temperature|top_([kp]|n_sigma)|min_p|typical_p|repeat_last_n|\w+t_penalty|frequency_penalty|seed|stop|(dry|xtc|dynatemp|mirostat).*)$/;

function ollama({ model, prompt, messages, stream = false, logprobs, top_logprobs, ...others }, path, hasKey) {
  const options = { temperature: 1, top_k: 0, top_p: 1, repeat_last_n: -1 }; // Ollama has defaults of its own.
  const missing = Array.isArray(prompt) ? ["prompt of token ids"] : [];
  for (const [name, value] of Object.entries(others)) {
    const theirs = RENAMED[name] ?? name;
    if (OLLAMA.test(theirs)) options[theirs] = name === "stop" ? [value].flat() : value;
    else missing.push(name);
  }
  const body = { model, ...(messages ? { messages } : { prompt: `${prompt}`, raw: true }), stream, options };
  if (logprobs) Object.assign(body, { logprobs: true, top_logprobs: top_logprobs ?? (logprobs === true ? 0 : logprobs) });
  return (missing.length ? `# Ollama's API has no ${missing.join(", ")}.\n` : "")
    + curlOf(body, messages ? "api/chat" : "api/generate", hasKey);
}

const LANGUAGES = { curl, Python: python, Ollama: ollama };

/** Shows a dialog with a request as the user set it. A stream and log-probabilities are added on demand. */
export function showCode(request, hasKey) {
  const dialog = find("code");
  const show = () => {
    const body = withoutOwn(request);
    for (const name of ["logprobs", "top_logprobs"]) {
      if (find("code-logprobs").checked && name in request) body[name] = request[name];
    }
    if (find("code-stream").checked) body.stream = true;
    const language = dialog.querySelector("[name=language]:checked").value;
    const note = Array.isArray(request.prompt) ? IDS_NOTE : "";
    const path = "messages" in request ? "chat/completions" : "completions";
    find("code-text").textContent = note + LANGUAGES[language](body, path, hasKey);
  };
  find("code-languages").replaceChildren(...Object.keys(LANGUAGES).map((name) => make("label", { class: "chip" },
    make("input", { type: "radio", name: "language", value: name, checked: name === "curl", onchange: show }), make("span", { text: name }))));
  for (const id of ["code-stream", "code-logprobs"]) {
    find(id).checked = false;
    find(id).onchange = show;
  }
  show();
  dialog.showModal();
}
