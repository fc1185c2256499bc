// One answer: its tokens as they arrive, its speed, and its actions.

import { alternatives } from "./alternatives.js";
import { copyText } from "./code.js";
import { formatCount, formatDuration, make } from "./dom.js";
import { TokenStrip, likeliestFirst } from "./tokens.js";

const NOTE = "Choose one to continue from here. Probabilities are the model's, before temperature and filters.";
const MAX_SHOWN_PROMPT = 400;

/** Tokens per second. If all tokens arrived at once, the time since the request counts, not the time between them. */
export function rateOf(numTokens, startMs, firstMs, lastMs) {
  const isSpread = numTokens > 1 && lastMs - firstMs > 20;
  const seconds = (isSpread ? lastMs - firstMs : lastMs - startMs) / 1000;
  return seconds > 0 ? (isSpread ? numTokens - 1 : numTokens) / seconds : 0;
}

/**
 * Mutable: a card. `origin` is the text before the answer: { promptText, promptIds, kept, chosen }, where `kept` has the
 * parent answer's tokens before the chosen one. `onBranch(card, index, alternative)`, `onCode(request)`.
 */
export class AnswerCard {
  text = "";
  #finishReason = null;
  #stopReason = null;
  #keptCount = 0;
  #numIds = 0;
  #startMs = performance.now();
  #firstMs = null;
  #lastMs = null;
  #facts = make("p", { class: "facts" });
  #actions = make("div", { class: "actions", hidden: true });
  #continue;
  #code;

  constructor({ title, request, origin, onBranch, onCode }) {
    Object.assign(this, { title, request, origin });
    this.promptIds = origin.promptIds ?? null;
    const look = (token, isMeant) => alternatives.look(token, isMeant, {
      onBranch: this.promptIds && ((at, alternative) => onBranch(this, at.index, alternative)),
      note: NOTE,
    });
    this.strip = new TokenStrip(`Tokens of ${title}`, { onLook: look, onLeave: () => alternatives.leave() });
    this.#build(onBranch, onCode);
    for (const token of origin.kept ?? []) this.strip.add({ ...token }, { isKept: true });
    if (origin.chosen) this.strip.add(origin.chosen, { isChosen: true });
    this.#keptCount = this.strip.tokens.length;
  }

  get numTokens() {
    return this.strip.tokens.length - this.#keptCount;
  }

  /** Ids of the prompt and of the tokens before `index`: the prompt of a branch there. */
  idsBefore(index) {
    return [...this.promptIds, ...this.strip.tokens.slice(0, index).map(({ id }) => id)];
  }

  /** Adds one choice of an event. */
  accept(choice) {
    this.promptIds ??= choice.prompt_token_ids ?? null;
    this.text += choice.text;
    const { tokens, token_logprobs: logprobs, top_logprobs: tops } = choice.logprobs ?? { tokens: [] };
    tokens.forEach((text, index) => {
      this.strip.add({ text, logprob: logprobs[index], top: likeliestFirst(tops[index]), numAsked: this.request.logprobs });
    });
    for (const id of choice.token_ids ?? []) {
      const token = this.strip.tokens[this.#keptCount + this.#numIds];
      if (token) token.id = id;
      this.#numIds += 1;
    }
    if (tokens.length) {
      this.#lastMs = performance.now();
      this.#firstMs ??= this.#lastMs;
    }
    if (choice.finish_reason) this.#finish(choice.finish_reason, choice.stop_reason);
    this.#showFacts();
  }

  /** Ends the run. `reason` is shown if the service sent no finish reason. */
  end(reason) {
    this.node.classList.remove("running");
    this.node.removeAttribute("aria-busy");
    if (!this.#finishReason) this.#finish(reason);
    this.#continue.hidden = this.#finishReason !== "length" && this.#finishReason !== "stopped";
    this.#actions.hidden = false;
    this.#showFacts();
  }

  /** An answer from the history: text only. */
  showPlain(text) {
    this.text = text;
    this.node.querySelector(".tokens").replaceWith(make("p", { class: "tokens plain", text }));
    this.end("from the history");
    this.#code.hidden = true;
  }

  #build(onBranch, onCode) {
    const { promptText } = this.origin;
    const isLong = promptText.length > MAX_SHOWN_PROMPT;
    const prompt = make("span", { class: "prompt", text: isLong ? `… ${promptText.slice(-MAX_SHOWN_PROMPT)}` : promptText });
    const button = (text, onclick, label) => make("button", { type: "button", class: "quiet", text, onclick, "aria-label": label });
    const copy = button("Copy text", () => copyText(promptText + (this.strip.tokens.length ? this.strip.text : this.text), copy));
    this.#continue = button("Continue", () => onBranch(this, this.#lastShown(), null));
    this.#code = button("Code", () => onCode(this.request));
    this.#actions.append(this.#continue, copy, this.#code);
    const remove = button("×", () => this.node.remove(), `Remove ${this.title}`);
    remove.classList.add("remove");
    this.node = make("article", { class: "card answer running", "aria-label": this.title, "aria-busy": "true" },
      make("header", {}, make("h2", { text: this.title }), remove),
      make("div", { class: "story" }, prompt, this.strip.node),
      make("footer", {}, this.#facts, this.#actions));
  }

  /** The index at which the text ends: before an end-of-text token. */
  #lastShown() {
    const { tokens } = this.strip;
    return tokens.at(-1)?.node.classList.contains("special") ? tokens.length - 1 : tokens.length;
  }

  #finish(reason, stop) {
    this.#finishReason = reason;
    this.#stopReason = stop ?? null;
    if (typeof stop === "string") this.#fadeCut();
  }

  #fadeCut() {
    const encoder = new TextEncoder();
    let room = encoder.encode(this.text).length;
    const { tokens } = this.strip;
    for (let index = this.#keptCount; index < tokens.length; index += 1) {
      room -= encoder.encode(tokens[index].text).length;
      if (room < 0) {
        this.strip.fade(index);
        return;
      }
    }
  }

  #showFacts() {
    const facts = [formatCount(this.numTokens, "token")];
    if (this.#firstMs !== null) {
      const rate = rateOf(this.numTokens, this.#startMs, this.#firstMs, this.#lastMs);
      facts.push(`${rate.toFixed(0)} tokens/s`, `first token after ${formatDuration(this.#firstMs - this.#startMs)}`);
    }
    if (this.#finishReason) facts.push(this.#ending());
    this.#facts.textContent = (this.numTokens ? facts : facts.slice(1)).join(" · ");
  }

  #ending() {
    if (this.#stopReason !== null) return `ended at ${JSON.stringify(this.#stopReason)}`;
    return { length: "length limit", stop: "ended by the model", stopped: "stopped by you" }[this.#finishReason]
      ?? this.#finishReason;
  }
}
