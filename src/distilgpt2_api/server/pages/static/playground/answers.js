// One answer: its tokens as they arrive, its settings, its speed, and its actions.

import { alternatives } from "./alternatives.js";
import { copyText } from "./clipboard.js";
import { find, formatCount, formatDuration, make, makeButton } from "./dom.js";
import { labelOf, settingsOf, valueText } from "./requests.js";
import { TokenStrip, likeliestFirst, packToken, unpackToken } from "./tokens.js";

const NOTE = "Probabilities are the model's, before temperature and filters.";
const MAX_SHOWN_PROMPT = 400;
const ENDINGS = { length: "stopped at length limit", stop: "ended by the model", stopped: "stopped by you" };

/** How an answer ended, in words. */
export function endingOf(finishReason, stopReason) {
  if (stopReason !== null && stopReason !== undefined) return `ended at ${JSON.stringify(stopReason)}`;
  return ENDINGS[finishReason] ?? finishReason;
}

/**
 * Mutable: a card. `origin`: { promptText, promptIds }, in a branch also { kept, chosen }, its parent's tokens and the new
 * one. `actions`: onBranch(card, index, alternative), and those that it has buttons for, called with the card.
 */
export class AnswerCard {
  text = "";
  isPinned = false;
  parent = null;
  #finishReason = null;
  #stopReason = null;
  #keptCount = 0;
  #chosenAt = null;
  #numIds = 0;
  #startMs = performance.now();
  #firstMs = null;
  #figures = { rate: null, firstTokenMs: null };
  #facts = make("p", { class: "facts" });
  #buttons = make("div", { class: "actions", hidden: true });
  #given = make("ul", { class: "given", "aria-label": "Settings" });
  #pin;
  #continue;

  constructor({ title, request, origin, time = Date.now() }, actions) {
    Object.assign(this, { title, request, origin, time });
    this.promptIds = origin.promptIds ?? null;
    const look = (token, isMeant) => alternatives.look(token, isMeant, {
      onBranch: this.promptIds && ((at, alternative) => actions.onBranch(this, at.index, alternative)),
      note: this.promptIds ? `Choose one to continue from here. ${NOTE}` : NOTE,
    });
    this.strip = new TokenStrip(`Tokens of ${title}`, { onLook: look, onLeave: () => alternatives.leave() });
    this.#build(actions);
    this.showDifferences(new Set());
    for (const token of origin.kept ?? []) this.strip.add({ ...token }, { isKept: true });
    if (origin.chosen) this.#chosenAt = this.strip.add(origin.chosen, { isChosen: true }).index;
    this.#keptCount = this.strip.tokens.length;
  }

  /** A complete card from its `record`. */
  static restore(record, actions) {
    const tokens = record.tokens.map(unpackToken);
    const kept = tokens.slice(0, record.chosenAt ?? record.numKept);
    const chosen = record.chosenAt === null ? null : tokens[record.chosenAt];
    const { title, request, time, promptText, promptIds } = record;
    const card = new AnswerCard({ title, request, time, origin: { promptText, promptIds, kept, chosen } }, actions);
    for (const token of tokens.slice(record.numKept)) card.strip.add(token);
    card.text = record.text;
    card.#figures = record.figures;
    card.#finish(record.finishReason, record.stopReason);
    card.end();
    return card;
  }

  /** The answer as data, for storage. */
  get record() {
    return {
      title: this.title, time: this.time, request: this.request, promptText: this.origin.promptText,
      promptIds: this.promptIds, tokens: this.strip.tokens.map(packToken), numKept: this.#keptCount,
      chosenAt: this.#chosenAt, text: this.text, figures: this.#figures,
      finishReason: this.#finishReason, stopReason: this.#stopReason,
    };
  }

  /** What a branch took from its parent. `text` is what follows. */
  get keptText() {
    return this.strip.textBefore(this.#keptCount);
  }

  get numTokens() {
    return this.strip.tokens.length - this.#keptCount;
  }

  get isRunning() {
    return this.#finishReason === null;
  }

  /** The prompt of a branch at `index`. */
  idsBefore(index) {
    return [...this.promptIds, ...this.strip.tokens.slice(0, index).map(({ id }) => id)];
  }

  accept(choice) {
    this.promptIds ??= choice.prompt_token_ids ?? null;
    this.text += choice.text;
    const { tokens, token_logprobs: logprobs, top_logprobs: tops } = choice.logprobs ?? { tokens: [] };
    const numAsked = this.request.top_logprobs ?? this.request.logprobs;
    tokens.forEach((text, index) => this.strip.add({ text, logprob: logprobs[index], top: likeliestFirst(tops[index]), numAsked }));
    for (const id of choice.token_ids ?? []) {
      const token = this.strip.tokens[this.#keptCount + this.#numIds];
      if (token) token.id = id;
      this.#numIds += 1;
    }
    if (tokens.length) {
      const nowMs = performance.now();
      this.#firstMs ??= nowMs;
      // Since the request: how tokens are spread within it depends on when the browser reads them.
      const rate = (1000 * this.numTokens) / (nowMs - this.#startMs);
      this.#figures = { rate, firstTokenMs: this.#firstMs - this.#startMs };
    }
    if (choice.finish_reason) this.#finish(choice.finish_reason, choice.stop_reason);
    this.#showFacts();
  }

  /** The service's own measurements, of all answers of the request together. */
  showTimings(timings) {
    this.#figures.timings = timings;
    this.#showFacts();
  }

  /** Ends the run. `reason` is shown if the service sent no finish reason. */
  end(reason) {
    this.node.classList.remove("running");
    this.node.removeAttribute("aria-busy");
    if (!this.#finishReason) this.#finish(reason);
    this.#continue.hidden = !this.promptIds || !["length", "stopped", "interrupted"].includes(this.#finishReason);
    this.#buttons.hidden = false;
    this.#showFacts();
  }

  /** Marks the settings with these names. */
  showDifferences(names) {
    const settings = Object.entries(settingsOf(this.request));
    this.#given.replaceChildren(...settings.map(([name, value]) => make("li", {},
      `${labelOf(name)} `, make(names.has(name) ? "mark" : "span", { text: valueText(value) }))));
  }

  showPinned(isPinned) {
    this.isPinned = isPinned;
    this.#pin?.setAttribute("aria-pressed", String(isPinned));
  }

  #build(actions) {
    const { promptText } = this.origin;
    const isLong = promptText.length > MAX_SHOWN_PROMPT;
    const prompt = make("span", { class: "prompt", text: isLong ? `… ${promptText.slice(-MAX_SHOWN_PROMPT)}` : promptText });
    const copy = makeButton("Copy", () => copyText(promptText + this.keptText + this.text, copy), "Copy the text");
    const offer = (act, text, label, options) => act && makeButton(text, () => act(this), label, options);
    this.#continue = makeButton("Continue", () => actions.onBranch(this, this.#lastShown(), null));
    this.#buttons.append(...[
      offer(actions.onAgain, "Again", "Again: generate another answer"), this.#continue, copy, offer(actions.onCode, "Code"),
      offer(actions.onReuse, "Reuse", "Reuse this prompt, settings and seed"),
    ].filter(Boolean));
    const pin = offer(actions.onPin, "", `Pin ${this.title}`, { class: "quiet pin" });
    pin?.append(find("pin-icon").content.cloneNode(true));
    this.#pin = pin;
    const remove = offer(actions.onRemove, "×", `Remove ${this.title}`, { class: "quiet remove" });
    this.showPinned(false);
    this.node = make("article", { class: "card answer running", "aria-label": this.title, "aria-busy": "true" },
      make("header", {}, ...[make("h3", { text: this.title }), pin, remove, this.#given].filter(Boolean)),
      make("div", { class: "story" }, prompt, this.strip.node),
      make("footer", {}, this.#facts, this.#buttons));
  }

  /** The index at which the text ends: before an end-of-text token. */
  #lastShown() {
    const { tokens } = this.strip;
    return tokens.at(-1)?.node.classList.contains("special") ? tokens.length - 1 : tokens.length;
  }

  #finish(reason, stop = null) {
    this.#finishReason = reason;
    this.#stopReason = stop;
    if (typeof stop === "string") this.strip.cutAfter(this.text, this.#keptCount);
  }

  #showFacts() {
    const { rate, firstTokenMs, timings } = this.#figures;
    const facts = [formatCount(this.numTokens, "token")];
    if (rate !== null) facts.push(`${rate.toFixed(0)}\u00a0tokens/s`, `first after ${formatDuration(firstTokenMs)}`);
    if (this.#finishReason) facts.push(endingOf(this.#finishReason, this.#stopReason));
    if (timings) {
      const { queue_ms: queue, prompt_ms: prefill, predicted_ms: decode, predicted_per_second: perS } = timings;
      const times = Object.entries({ queue, prefill, decode }).map(([name, ms]) => `${name} ${formatDuration(ms)}`);
      facts.push(`service: ${times.join(", ")}${perS ? `, ${perS.toFixed(0)}\u00a0tokens/s` : ""}`);
    }
    this.#facts.textContent = facts.join(" · ");
  }
}
