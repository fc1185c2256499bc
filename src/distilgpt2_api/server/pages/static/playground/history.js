// Earlier prompts and answers, in this browser only: bounded, and cleared with one click.

import { find, make } from "./dom.js";
import { forget, keep, recall } from "./storage.js";

const NAME = "history";
const MAX_ENTRIES = 30;
const MAX_TEXT = 4000;

/** Mutable. `onPick(entry)`: an entry is { time, promptText, texts, values }, with the `values` of the settings. */
export class History {
  #entries = [];

  constructor(onPick) {
    this.onPick = onPick;
    const kept = recall(NAME);
    this.#entries = Array.isArray(kept) ? kept.filter((entry) => entry?.promptText !== undefined && Array.isArray(entry.texts)) : [];
    find("history-clear").addEventListener("click", () => this.clear());
    this.#draw();
  }

  add(entry) {
    const texts = entry.texts.map((text) => text.slice(0, MAX_TEXT));
    const added = { ...entry, promptText: entry.promptText.slice(0, MAX_TEXT), texts, time: Date.now() };
    this.#entries = [added, ...this.#entries].slice(0, MAX_ENTRIES);
    keep(NAME, this.#entries);
    this.#draw();
  }

  clear() {
    this.#entries = [];
    forget(NAME);
    this.#draw();
  }

  #draw() {
    const format = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });
    find("history-list").replaceChildren(...this.#entries.map((entry) => make("li", {},
      make("button", { type: "button", class: "past", onclick: () => this.onPick(entry) },
        make("span", { class: "past-prompt", text: entry.promptText }),
        make("span", { class: "past-text", text: entry.texts[0] }),
        make("time", { class: "help", datetime: new Date(entry.time).toISOString(), text: format.format(entry.time) })))));
    find("history-empty").hidden = this.#entries.length > 0;
    find("history-clear").hidden = this.#entries.length === 0;
  }
}
