// Earlier runs, in this browser only: bounded, and cleared with one click.

import { find, keepFocus, make } from "./dom.js";
import { forget, keep, recall } from "./storage.js";

const NAME = "history";
const MAX_ENTRIES = 30;
/** Browsers store about five million characters per site. */
const MAX_CHARACTERS = 2_000_000;

/** Mutable. `onPick(entry)`: an entry is { id, promptText, answers }, with the records of its cards. */
export class History {
  #entries = [];

  constructor(onPick) {
    this.onPick = onPick;
    const kept = recall(NAME);
    this.#entries = Array.isArray(kept) ? kept.filter((entry) => Array.isArray(entry?.answers)) : [];
    find("history-clear").addEventListener("click", () => keepFocus(() => this.clear(), () => find("tab-history")));
    this.#draw();
  }

  /** Adds a run, or its new branches. */
  put({ id, promptText, cards }) {
    const entry = { id, promptText, answers: cards.filter((card) => !card.isRunning).map((card) => card.record) };
    const others = this.#entries.filter((one) => one.id !== id);
    let room = MAX_CHARACTERS;
    this.#entries = [entry, ...others].slice(0, MAX_ENTRIES).filter((one) => {
      room -= JSON.stringify(one).length;
      return room >= 0;
    });
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
      make("button", { class: "past", onclick: () => this.onPick(entry) },
        make("span", { class: "past-prompt", text: entry.promptText || "A scored text" }),
        make("span", { class: "past-text", text: entry.answers[0]?.text }),
        make("time", { class: "help", datetime: new Date(entry.id).toISOString(), text: format.format(entry.id) })))));
    find("history-empty").hidden = this.#entries.length > 0;
    find("history-clear").hidden = this.#entries.length === 0;
  }
}
