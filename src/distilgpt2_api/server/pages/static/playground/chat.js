// A conversation with a model that has a chat template.

import { AnswerCard } from "./answers.js";
import { find, keepFocus, make, makeButton } from "./dom.js";
import { stream } from "./generation.js";
import { keep, recall } from "./storage.js";
import { unlistedText } from "./tokens.js";

/**
 * Mutable: owns the conversation, a list of texts of the user and of cards with answers. `readFields()` gives model and
 * sampling fields, or null; `onProblem(message)`, `onError(error, retry)`, `onCode(request)`.
 */
export class Chat {
  #turns = [];
  #controller = null;

  constructor(callbacks) {
    Object.assign(this, callbacks);
    const kept = recall("chat");
    if (Array.isArray(kept?.turns)) this.#turns = kept.turns.map((turn) => (typeof turn === "string" ? turn : AnswerCard.restore(turn, this.#actions)));
    find("chat-system").value = kept?.system ?? "";
    for (const [id, act] of Object.entries({
      "chat-send": () => this.send(),
      "chat-stop": () => this.stop(),
      "chat-clear": () => this.#cut(0),
    })) find(id).addEventListener("click", act);
    find("chat-system").addEventListener("input", () => this.#save());
    find("chat-input").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      event.stopPropagation();
      this.send();
    });
    this.#draw();
  }

  /** The user's last text, or an empty one. */
  get lastSaid() {
    return this.#turns.findLast((turn) => typeof turn === "string") ?? "";
  }

  /** Returns whether there was anything to stop. */
  stop() {
    const isRunning = this.#controller !== null;
    this.#controller?.abort();
    return isRunning;
  }

  send() {
    const text = find("chat-input").value.trim();
    this.onProblem(text ? "" : "Write a message first.");
    const fields = text && !this.#controller && this.readFields();
    if (!fields) return;
    this.#turns.push(text);
    find("chat-input").value = "";
    this.#answer(fields);
  }

  get #actions() {
    return { onCode: (card) => this.onCode(card.request), onAgain: (card) => this.#again(card) };
  }

  #requestFor({ n: _, model, max_tokens: maxTokens, logprobs, ...sampling }) {
    const system = find("chat-system").value.trim();
    const messages = this.#turns.map((turn) => (typeof turn === "string" ? { role: "user", content: turn } : { role: "assistant", content: turn.text }));
    if (system) messages.unshift({ role: "system", content: system });
    return { model, messages, max_completion_tokens: maxTokens, ...sampling, logprobs: true, top_logprobs: logprobs, stream: true, timings: true };
  }

  async #answer(fields) {
    const request = this.#requestFor(fields);
    const card = new AnswerCard({ title: "Model", request, origin: { promptText: "" } }, this.#actions);
    this.#turns.push(card);
    this.#controller = new AbortController();
    this.#draw();
    card.node.scrollIntoView({ block: "nearest" });
    const error = await stream("v1/chat/completions", request, [card], this.#controller.signal, asCompletion);
    this.#controller = null;
    if (error && !card.numTokens) {
      // The text returns to the input, so that it is not lost.
      this.#turns.pop();
      find("chat-input").value ||= this.#turns.pop();
    }
    this.#save();
    this.#draw();
    card.node.scrollIntoView({ block: "nearest" });
    if (error) this.onError(error, () => this.send());
  }

  /** Another answer to the same text. Later turns are removed. */
  #again(card) {
    const fields = !this.#controller && this.readFields();
    if (!fields) return;
    this.#turns.length = this.#turns.indexOf(card);
    this.#answer(fields);
  }

  /** Removes a text and what follows; it returns to the input. */
  #cut(index) {
    this.stop();
    find("chat-input").value = index ? this.#turns[index] : "";
    this.#turns.length = index;
    this.#save();
    this.#draw();
    find("chat-input").focus();
  }

  #save() {
    const turns = this.#turns.map((turn) => turn.record ?? turn);
    keep("chat", { system: find("chat-system").value, turns });
  }

  #draw() {
    keepFocus(() => this.#redraw(), () => find(this.#controller ? "chat-stop" : "chat-send"));
  }

  #redraw() {
    const said = (text, index) => make("li", { class: "said" }, make("h3", { class: "unseen", text: "You" }), make("p", { class: "story", text }),
      make("div", { class: "actions" }, makeButton("Edit", () => this.#cut(index), "Edit this message, and continue from it")));
    find("chat-messages").replaceChildren(...this.#turns.map((turn, index) => (typeof turn === "string" ? said(turn, index) : make("li", {}, turn.node))));
    find("chat-empty").hidden = this.#turns.length > 0;
    find("chat-clear").hidden = !this.#turns.length;
    find("chat-send").hidden = this.#controller !== null;
    find("chat-stop").hidden = this.#controller === null;
  }
}

/** A choice of a chat's stream as one of a completion's. */
function asCompletion({ delta, logprobs, ...others }) {
  const listed = logprobs?.content ?? [];
  return {
    ...others,
    text: delta.content ?? "",
    logprobs: {
      tokens: listed.map(unlistedText),
      token_logprobs: listed.map(({ logprob }) => logprob),
      top_logprobs: listed.map(({ top_logprobs: top }) => Object.fromEntries(top.map((one) => [unlistedText(one), one.logprob]))),
    },
  };
}
