// The API key, if the service requires one: kept in this tab, or on this device if the user chooses. Never in a URL.

import { find } from "./dom.js";
import { forget, keep, recall } from "./storage.js";

const NAME = "key";

export const readKey = () => recall(NAME);

export function forgetKey() {
  forget(NAME);
}

let asking = null;

/** Asks the user for a key, with one dialog for all callers. True if the user entered one. */
export function askForKey() {
  asking ??= ask().finally(() => {
    asking = null;
  });
  return asking;
}

function ask() {
  const dialog = find("key-dialog");
  const input = find("key");
  const problem = find("key-problem");
  input.value = "";
  problem.textContent = readKey() ? "The service does not accept this key." : "";
  dialog.showModal();
  return new Promise((resolve) => {
    const submit = (event) => {
      event.preventDefault();
      const key = input.value.trim();
      if (!/^[\x21-\x7e]+$/.test(key)) {
        problem.textContent = "A key has letters, digits and punctuation, but no spaces.";
        input.focus();
        return;
      }
      keep(NAME, key, { isLasting: find("key-remember").checked });
      dialog.close("entered");
    };
    find("key-form").onsubmit = submit;
    dialog.onclose = () => {
      const isEntered = dialog.returnValue === "entered";
      dialog.returnValue = "";
      input.value = "";
      resolve(isEntered);
    };
  });
}
