// The alternatives to a token, in one small window beside it.

import { find, formatProbability, make } from "./dom.js";
import { spell } from "./tokens.js";

const LEAVE_DELAY_MS = 250;

/** A listing has the likeliest tokens, followed by the sampled one if it is not among them. */
function rankOf({ text, top, numAsked }) {
  const index = top.findIndex((one) => one.text === text);
  if (index < 0) return null;
  if (index >= numAsked) return numAsked ? `not among the ${numAsked} likeliest` : null;
  return index ? `choice ${index + 1}` : "the likeliest";
}

/** Mutable: the one window of the page. It follows pointer and focus until a token is opened; then it stays. */
class Alternatives {
  #node = find("alternatives");
  #token = null;
  #isPinned = false;
  #leaving = 0;
  /** The focus is returning to a token, which must not open the window again. */
  #isReturning = false;
  /** On narrow screens the window is at the bottom, where it could cover a token under the pointer. */
  #isSheet = matchMedia("(max-width: 40rem)");

  constructor() {
    this.#node.addEventListener("pointerenter", () => clearTimeout(this.#leaving));
    this.#node.addEventListener("pointerleave", () => this.leave());
    this.#node.addEventListener("keydown", (event) => this.#onKey(event));
    document.addEventListener("pointerdown", (event) => {
      if (!this.#node.contains(event.target) && !event.target.closest(".token")) this.close();
    });
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth !== width) this.close(); // A phone's address bar changes the height only, which moves nothing.
      width = innerWidth;
    });
  }

  /** `onBranch(token, alternative)`: the user chose another token for this position. Without it the list is read-only. */
  look(token, isMeant, { onBranch, note }) {
    if (this.#isReturning || (!isMeant && (this.#isPinned || this.#isSheet.matches))) return;
    clearTimeout(this.#leaving);
    this.#select(token);
    this.#isPinned = isMeant;
    this.#node.replaceChildren(...this.#content(token, onBranch, note));
    this.#node.hidden = false;
    this.#moveTo(token.node);
    if (isMeant) this.#node.querySelector("button:not([disabled])")?.focus({ preventScroll: true });
  }

  leave() {
    clearTimeout(this.#leaving);
    if (!this.#isPinned) this.#leaving = setTimeout(() => this.close(), LEAVE_DELAY_MS);
  }

  /** Returns whether the window was open. */
  close() {
    if (this.#node.hidden) return false;
    const hadFocus = this.#node.contains(document.activeElement);
    const { node } = this.#token;
    this.#select(null);
    this.#isPinned = false;
    this.#node.hidden = true;
    this.#isReturning = true;
    if (hadFocus) node.focus({ preventScroll: true });
    this.#isReturning = false;
    return true;
  }

  #select(token) {
    this.#token?.node.setAttribute("aria-selected", "false");
    this.#token = token;
    token?.node.setAttribute("aria-selected", "true");
  }

  #content(token, onBranch, note) {
    const facts = [
      token.logprob === null ? "first token, no prediction" : formatProbability(token.logprob),
      rankOf(token),
      token.id !== undefined && `id ${token.id}`,
    ].filter(Boolean);
    const head = make("div", { class: "alternatives-head" },
      make("code", { text: spell(token.text) }), make("span", { text: facts.join(" · ") }));
    const rows = token.top.map((one) => this.#row(one, one.text === token.text, token, onBranch));
    const list = make("div", {}, ...rows);
    const hint = rows.length ? note : "The request did not ask for alternatives.";
    return [head, list, make("p", { class: "help", text: hint })];
  }

  #row(alternative, isOwn, token, onBranch) {
    const bar = make("span", { class: "share" });
    bar.style.setProperty("--share", Math.exp(alternative.logprob).toFixed(4));
    const probability = formatProbability(alternative.logprob);
    return make("button", {
      type: "button", class: isOwn ? "alternative own" : "alternative", disabled: isOwn || !onBranch,
      "aria-label": `${spell(alternative.text)}, ${probability}${isOwn ? ", the sampled one" : ", continue from here"}`,
      onclick: () => {
        this.close();
        onBranch(token, alternative);
      },
    }, bar, make("code", { text: spell(alternative.text) }), make("span", { class: "probability", text: probability }));
  }

  /** Below the token, or above it if there is no room. On narrow screens the style sheet ignores the position. */
  #moveTo(anchor) {
    const box = anchor.getClientRects()[0] ?? anchor.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.#node;
    const left = Math.max(8, Math.min(box.left - 12, document.documentElement.clientWidth - width - 8));
    const isBelow = box.bottom + height + 12 < innerHeight || box.top < height + 12;
    this.#node.style.setProperty("--left", `${left + scrollX}px`);
    this.#node.style.setProperty("--top", `${(isBelow ? box.bottom + 6 : box.top - height - 6) + scrollY}px`);
  }

  #onKey(event) {
    const rows = [...this.#node.querySelectorAll("button:not([disabled])")];
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Tab") this.close();
    if (to === undefined || !rows.length) return;
    event.preventDefault();
    rows[(to + rows.length) % rows.length].focus();
  }
}

export const alternatives = new Alternatives();
