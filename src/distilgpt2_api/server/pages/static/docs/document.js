"use strict";
// The OpenAPI document for /docs and /redoc. If the service has keys, this uses the playground's, or asks for one. All
// paths are relative, so that they also work below a proxy's path prefix.

const KEY_NAME = `distilgpt2-playground:${new URL(".", location).pathname}:key`;

function readKey() {
  try {
    return JSON.parse(localStorage.getItem(KEY_NAME) ?? sessionStorage.getItem(KEY_NAME));
  } catch {
    return null; // Storage is blocked.
  }
}

/** Calls `show(document, key)`; `key` is null if none was needed. */
async function loadDocument(show, key = readKey()) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const answer = await fetch("openapi.json", { headers });
  if (answer.status === 401) askForKey(show, key ? "The service does not accept this key." : "This service needs a key.");
  else if (answer.ok) show(await answer.json(), key);
  else document.body.append(`The service answered ${answer.status}.`);
}

function askForKey(show, reason) {
  const form = document.createElement("form");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const button = document.createElement("button");
  Object.assign(input, { type: "password", name: "key", autocomplete: "off", required: true });
  label.append(`${reason} API key: `, input);
  button.append("Use this key");
  form.append(label, " ", button);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    form.remove();
    try {
      sessionStorage.setItem(KEY_NAME, JSON.stringify(input.value));
    } catch {
      // Storage is blocked: the key is used once.
    }
    loadDocument(show, input.value);
  });
  document.body.prepend(form);
  input.focus();
}
