// What else could have stood there: one little window, beside whichever token is looked at.

import { find, formatProbability, make } from "./dom.js";
import { spell } from "./tokens.js";

const LEAVE_DELAY_MS = 250;

/** A listing has the likeliest tokens, and the one drawn after them where it is none of those. */
function placeOf({ text, top, numAsked }) {
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
  /** The focus goes back to a token: nobody looks at it anew. */
  #isReturning = false;
  /** Narrow: at the foot of the screen, where it could lie on the token that is merely pointed at. */
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
      if (innerWidth !== width) this.close(); // A phone's address bar comes and goes; that moves nothing.
      width = innerWidth;
    });
  }

  /** `onBranch(alternative)`: somebody chose another token for this place; without it there is nothing to choose. */
  look(token, isMeant, { onBranch, note }) {
    if (this.#isReturning || (!isMeant && (this.#isPinned || this.#isSheet.matches))) return;
    clearTimeout(this.#leaving);
    this.#select(token);
    this.#isPinned = isMeant;
    this.#node.replaceChildren(...this.#content(token, onBranch, note));
    this.#node.hidden = false;
    this.#place(token.node);
    if (isMeant) this.#node.querySelector("button:not([disabled])")?.focus({ preventScroll: true });
  }

  leave() {
    clearTimeout(this.#leaving);
    if (!this.#isPinned) this.#leaving = setTimeout(() => this.close(), LEAVE_DELAY_MS);
  }

  /** Whether there was one to close. */
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
      token.logprob === null ? "nothing comes before it" : formatProbability(token.logprob),
      placeOf(token),
      token.id !== undefined && `id ${token.id}`,
    ].filter(Boolean);
    const head = make("div", { class: "alternatives-head" },
      make("code", { text: spell(token.text) }), make("span", { text: facts.join(" · ") }));
    const rows = token.top.map((one) => this.#row(one, one.text === token.text, token, onBranch));
    const list = make("div", {}, ...rows);
    const hint = rows.length ? note : "The request asked for no alternatives.";
    return [head, list, make("p", { class: "help", text: hint })];
  }

  #row(alternative, isOwn, token, onBranch) {
    const bar = make("span", { class: "share" });
    bar.style.setProperty("--share", Math.exp(alternative.logprob).toFixed(4));
    const probability = formatProbability(alternative.logprob);
    return make("button", {
      type: "button", class: isOwn ? "alternative own" : "alternative", disabled: isOwn || !onBranch,
      "aria-label": `${spell(alternative.text)}, ${probability}${isOwn ? ", the one drawn" : ", go on from here"}`,
      onclick: () => {
        this.close();
        onBranch(token, alternative);
      },
    }, bar, make("code", { text: spell(alternative.text) }), make("span", { class: "probability", text: probability }));
  }

  /** Below the token, inside the window; a narrow screen has it at its foot. Positions are the style sheet's there. */
  #place(anchor) {
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
