// The current request as code, for a terminal or a program. The key is a variable, never shown.

import { ROOT } from "./api.js";
import { announce, find, make } from "./dom.js";

/** The arguments of OpenAI's client. Other fields go into its `extra_body`. */
const OPENAI = new Set(["model", "prompt", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n",
  "presence_penalty", "seed", "stop", "stream", "stream_options", "temperature", "top_p", "user"]);

const quoteShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A JSON value in Python: only `null`, `true` and `false` differ. */
function python(value, indent = "") {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((item) => python(item, inner)).join(", ")}]`;
  const items = Object.entries(value).map(([name, item]) => `${inner}${JSON.stringify(name)}: ${python(item, inner)},\n`);
  return items.length ? `{\n${items.join("")}${indent}}` : "{}";
}

function curl(url, body, hasKey) {
  const lines = [`curl -N ${quoteShell(`${url}v1/completions`)}`, "-H 'Content-Type: application/json'"];
  if (hasKey) lines.push('-H "Authorization: Bearer $KEY"');
  return `${[...lines, `-d ${quoteShell(JSON.stringify(body))}`].join(" \\\n  ")}\n`;
}

function requests(url, body, hasKey) {
  const headers = hasKey ? '    headers={"Authorization": f"Bearer {os.environ[\'KEY\']}"},\n' : "";
  return `import json
${hasKey ? "import os\n" : ""}
import requests

answer = requests.post(
    ${JSON.stringify(`${url}v1/completions`)},
${headers}    json=${python(body, "    ")},
    stream=True,
)
answer.raise_for_status()
for line in answer.iter_lines():
    if line.startswith(b"data: {"):
        for choice in json.loads(line[6:])["choices"]:
            print(choice["text"], end="", flush=True)
`;
}

function openai(url, body, hasKey) {
  const known = Object.entries(body).filter(([name]) => OPENAI.has(name));
  const others = Object.entries(body).filter(([name]) => !OPENAI.has(name));
  const lines = known.map(([name, value]) => `    ${name}=${python(value, "    ")},\n`);
  if (others.length) lines.push(`    extra_body=${python(Object.fromEntries(others), "    ")},\n`);
  return `${hasKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(`${url}v1`)}, api_key=${hasKey ? 'os.environ["KEY"]' : '"none"'})
for event in client.completions.create(
${lines.join("")}):
    for choice in event.choices:
        print(choice.text, end="", flush=True)
`;
}

const LANGUAGES = [
  { name: "curl", write: curl },
  { name: "Python", write: requests },
  { name: "OpenAI client", write: openai },
];

/** To the clipboard; if the page may not write to it (plain HTTP from another machine), by `execCommand`. */
export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "copied", "aria-hidden": "true" });
    area.value = text;
    (button.closest("dialog") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const label = button.textContent;
  button.textContent = "Copied";
  announce("Copied");
  setTimeout(() => {
    button.textContent = label === "Copied" ? "Copy" : label;
  }, 1500);
}

/** Shows a dialog with the request in three languages. */
export function showCode(body, hasKey) {
  const dialog = find("code");
  const shown = find("code-text");
  const show = (language) => {
    shown.textContent = language.write(ROOT.href, body, hasKey);
    for (const radio of dialog.querySelectorAll("input")) radio.checked = radio.value === language.name;
  };
  find("code-languages").replaceChildren(...LANGUAGES.map((language) => make("label", { class: "chip" },
    make("input", { type: "radio", name: "language", value: language.name, onchange: () => show(language) }),
    make("span", { text: language.name }))));
  show(LANGUAGES[0]);
  dialog.showModal();
}
