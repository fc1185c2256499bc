// The answers on the page: runs, newest first, and pinned answers side by side.

import { AnswerCard } from "./answers.js";
import { announce, find, formatCount, keepFocus, make } from "./dom.js";
import { differencesOf } from "./requests.js";
import { keep, recall } from "./storage.js";

const MAX_RUNS = 20;

/**
 * Mutable: owns the cards. A run is { id, promptText, cards, node }, its cards in the order of the page. `actions`: what
 * an AnswerCard needs, but for pinning and removing.
 */
export class Board {
  #runs = [];
  #numRuns = 0;
  #pinned = [];
  #runOf = new Map();
  #actions;

  constructor(actions) {
    const keepingFocus = (act) => keepFocus(act, () => find("prompt"));
    this.#actions = { ...actions, onPin: (card) => keepingFocus(() => this.#togglePin(card)), onRemove: (card) => this.#remove(card) };
    const kept = recall("pinned");
    for (const record of Array.isArray(kept) ? kept : []) this.#pinned.push(AnswerCard.restore(record, this.#actions));
    find("unpin").addEventListener("click", () => keepingFocus(() => [...this.#pinned].forEach((card) => this.#togglePin(card))));
    find("clear-answers").addEventListener("click", () => keepingFocus(() => this.#clear()));
    this.#draw();
  }

  get pinned() {
    return this.#pinned;
  }

  /** All complete answers on the page: pinned ones, then the newest runs. */
  get cards() {
    const others = this.#runs.flatMap(({ cards }) => cards).filter((card) => !this.#pinned.includes(card));
    return [...this.#pinned, ...others].filter((card) => !card.isRunning);
  }

  newCard(title, request, origin) {
    return new AnswerCard({ title, request, origin }, this.#actions);
  }

  /** Shows a run above the others. */
  begin({ promptText, cards, id = Date.now() }) {
    const node = make("section", { class: "run", "aria-label": `Run ${this.#numRuns += 1}, answers to ${promptText.slice(0, 60)}` });
    const run = { id, promptText, cards: [], node };
    this.#runs.unshift(run);
    find("answers").prepend(node);
    for (const card of cards) this.#add(run, card, run.cards.length);
    this.#draw();
    return run;
  }

  /** Shows a branch behind its parent and the parent's other branches. */
  addBranch(parent, card) {
    const run = this.#runOf.get(parent) ?? this.begin({ promptText: parent.origin.promptText, cards: [] });
    let index = run.cards.indexOf(parent) + 1;
    card.parent = parent;
    while (isBelow(run.cards[index], parent)) index += 1;
    this.#add(run, card, index);
    this.#draw();
    return run;
  }

  /** Called when a request has ended: without text its cards go, with text the oldest runs do. */
  end(cards, hasText) {
    if (!hasText) cards.forEach((card) => this.#detach(card));
    for (const run of this.#runs.slice(MAX_RUNS)) this.#removeRun(run);
    this.#draw();
  }

  /** Shows a run of the history, or where it already is. */
  show({ id, promptText, answers }) {
    let run = this.#runs.find((one) => one.id === id);
    if (!run) {
      const isPinned = (record) => this.#pinned.find((card) => card.time === record.time && card.title === record.title);
      const cards = answers.map((record) => isPinned(record) ?? AnswerCard.restore(record, this.#actions));
      run = this.begin({ id, promptText, cards });
    }
    const first = run.cards[0]?.node ?? run.node;
    first.scrollIntoView({ block: "nearest" });
  }

  #add(run, card, index) {
    run.cards.splice(index, 0, card);
    this.#runOf.set(card, run);
    if (!card.isPinned) this.#place(run, card);
  }

  #place(run, card) {
    const later = run.cards.slice(run.cards.indexOf(card) + 1).find(({ node }) => node.parentNode === run.node);
    run.node.insertBefore(card.node, later?.node ?? null);
  }

  #togglePin(card) {
    if (card.isPinned) {
      this.#pinned = this.#pinned.filter((one) => one !== card);
      card.showPinned(false);
      const run = this.#runOf.get(card);
      if (this.#runs.includes(run)) this.#place(run, card);
      else this.begin({ promptText: card.origin.promptText, cards: [card] });
      announce(`${card.title} unpinned`);
    } else {
      this.#pinned.push(card);
      announce(`${card.title} pinned, ${formatCount(this.#pinned.length, "answer")} to compare`);
    }
    this.#draw();
  }

  /** Then the answer in its place has the focus. */
  #remove(card) {
    const buttons = () => [...document.querySelectorAll("#write .remove")];
    const index = buttons().indexOf(document.activeElement);
    keepFocus(() => this.end([card], false), () => buttons()[index] ?? buttons().at(-1) ?? find("prompt"));
  }

  #detach(card) {
    const run = this.#runOf.get(card);
    card.node.remove();
    this.#pinned = this.#pinned.filter((one) => one !== card);
    if (run) run.cards = run.cards.filter((one) => one !== card);
    if (run && !run.cards.length) this.#removeRun(run);
  }

  #removeRun(run) {
    run.node.remove();
    this.#runs = this.#runs.filter((one) => one !== run);
  }

  #clear() {
    for (const run of this.#runs) {
      if (!run.cards.some((card) => card.isRunning)) this.#removeRun(run);
    }
    announce("Answers removed. They are still in the history.");
    this.#draw();
  }

  #draw() {
    for (const card of this.#pinned) {
      card.showPinned(true);
      if (card.node.parentNode !== find("pinned-answers")) find("pinned-answers").append(card.node);
    }
    const differences = this.#pinned.length > 1 ? differencesOf(this.#pinned.map(({ request }) => request)) : new Set();
    for (const { cards } of this.#runs) for (const card of cards) card.showDifferences(new Set());
    for (const card of this.#pinned) card.showDifferences(differences);
    for (const { cards, node } of this.#runs) node.hidden = cards.every((card) => card.isPinned);
    find("pinned").hidden = !this.#pinned.length;
    find("answers-empty").hidden = this.#runs.length > 0 || this.#pinned.length > 0;
    find("answers-tools").hidden = !this.#runs.length && !this.#pinned.length;
    keep("pinned", this.#pinned.map((card) => card.record));
  }
}

function isBelow(card, ancestor) {
  for (let parent = card?.parent; parent; parent = parent.parent) if (parent === ancestor) return true;
  return false;
}
