// The alternatives to a token, in one small window beside it; on narrow screens in a sheet at the bottom.

import { find, formatProbability, make, makeButton } from "./dom.js";
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
  /** A sheet could cover the token under the pointer, so it opens only on demand. */
  #isSheet = matchMedia("(max-width: 62rem)");

  constructor() {
    this.#node.addEventListener("pointerenter", () => clearTimeout(this.#leaving));
    this.#node.addEventListener("pointerleave", () => this.leave());
    this.#node.addEventListener("keydown", (event) => this.#onKey(event));
    document.addEventListener("pointerdown", ({ target }) => {
      if (!this.#node.contains(target) && !target.closest(".token")) this.close();
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
    if (isMeant) (this.#rows[0] ?? this.#node.querySelector(".close")).focus({ preventScroll: true });
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
    document.body.style.paddingBottom = "";
    this.#isReturning = true;
    if (hadFocus) node.focus({ preventScroll: true });
    this.#isReturning = false;
    return true;
  }

  get #rows() {
    return [...this.#node.querySelectorAll(".alternative:not([disabled])")];
  }

  #select(token) {
    this.#token?.node.setAttribute("aria-selected", "false");
    this.#token = token;
    token?.node.setAttribute("aria-selected", "true");
  }

  #content(token, onBranch, note) {
    const likelihood = token.logprob === null ? "first token, no prediction" : formatProbability(token.logprob);
    const facts = [likelihood, rankOf(token), token.id !== undefined && `id ${token.id}`];
    const head = make("div", { class: "alternatives-head" },
      make("span", { class: "handle", "aria-hidden": "true" }),
      make("code", { text: spell(token.text) }), make("span", { class: "help", text: facts.filter(Boolean).join(" · ") }),
      makeButton("×", () => this.close(), "Close", { class: "quiet close" }));
    const rows = token.top.map((one) => this.#row(one, one.text === token.text, token, onBranch));
    return [head, ...rows, make("p", { class: "help", text: rows.length ? note : "The request did not ask for alternatives." })];
  }

  #row(alternative, isOwn, token, onBranch) {
    const bar = make("span", { class: "share" });
    bar.style.setProperty("--share", Math.exp(alternative.logprob).toFixed(4));
    const probability = formatProbability(alternative.logprob);
    const row = makeButton("", () => {
      this.close();
      onBranch(token, alternative);
    }, `${spell(alternative.text)}, ${probability}${isOwn ? ", the sampled one" : onBranch ? ", continue from here" : ""}`, {
      class: isOwn ? "alternative own" : "alternative", disabled: isOwn || !onBranch,
    });
    row.append(bar, make("code", { text: spell(alternative.text) }), make("span", { class: "facts", text: probability }));
    return row;
  }

  /** Below the token, or above it if there is no room. For a sheet the token moves, if it is below. */
  #moveTo(anchor) {
    const box = anchor.getClientRects()[0] ?? anchor.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.#node;
    if (this.#isSheet.matches) {
      document.body.style.paddingBottom = `${height}px`;
      scrollBy({ top: Math.max(0, box.bottom + height + 12 - innerHeight) });
      return;
    }
    const left = Math.max(8, Math.min(box.left - 12, document.documentElement.clientWidth - width - 8));
    const isBelow = box.bottom + height + 12 < innerHeight || box.top < height + 12;
    this.#node.style.setProperty("--left", `${left + scrollX}px`);
    this.#node.style.setProperty("--top", `${(isBelow ? box.bottom + 6 : box.top - height - 6) + scrollY}px`);
  }

  #onKey(event) {
    const rows = this.#rows;
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Tab") this.close();
    if (to === undefined || !rows.length) return;
    event.preventDefault();
    rows[(to + rows.length) % rows.length].focus();
  }
}

export const alternatives = new Alternatives();
