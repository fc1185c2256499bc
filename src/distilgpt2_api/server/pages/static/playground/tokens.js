// A text as tokens, each coloured by its probability. Arrow keys move between them.

import { formatProbability, make } from "./dom.js";

const LINE_END = "↵";

/** A listed token's bytes: its text, or `bytes:\xe2\x80` for a part of a character. */
function bytesOf(text) {
  if (!/^bytes:(\\x[0-9a-f]{2})+$/.test(text)) return new TextEncoder().encode(text);
  return Uint8Array.from(text.slice(8).split("\\x"), (hex) => Number.parseInt(hex, 16));
}

/** The text of a chat's token, as completions list it. */
export function unlistedText({ token, bytes }) {
  try {
    return bytes.length ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes)) : token;
  } catch {
    return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
  }
}

/** A token's text with visible spaces, line breaks and partial characters. */
export function spell(text) {
  if (text === "") return "(no text)";
  if (text.startsWith("bytes:\\x")) return `‹${text.slice(8).replaceAll("\\x", " ")}›`;
  return text.replaceAll(" ", "␣").replaceAll("\n", LINE_END).replaceAll("\t", "⇥").replaceAll("\r", "␍");
}

/** A token as a short list for storage, and back. */
export const packToken = ({ text, id, logprob, top, numAsked }) => [text, id, logprob, top.map((one) => [one.text, one.logprob]), numAsked];
export const unpackToken = ([text, id, logprob, top, numAsked]) => (
  { text, id: id ?? undefined, logprob, top: top.map(([other, value]) => ({ text: other, logprob: value })), numAsked }
);

/** A listing of `top_logprobs`, rounded for storage, as a token's `top`. */
export function likeliestFirst(listing) {
  const top = Object.entries(listing ?? {}).map(([text, logprob]) => ({ text, logprob: Number(logprob.toFixed(4)) }));
  return top.sort((a, b) => b.logprob - a.logprob);
}

const lineEnd = () => make("span", { class: "line-end", text: LINE_END });

const isSpecial = (text) => /^<\|.*\|>$/.test(text);

/** From 0 (certain) to 1 (a probability of 0.001 or less), on a logarithmic scale. */
const surpriseOf = (logprob) => Math.min(1, Math.max(0, -logprob / Math.log(1000)));

/** Tokens below these probabilities are underlined, once or twice: a second sign, beside the colour, at any width. */
const UNLIKELY = Math.log(0.1);
const RARE = Math.log(0.01);

/** The pointer's last place: after a reflow browsers also report tokens that moved below a resting pointer. */
let resting = "";
function hasMoved({ screenX, screenY }) {
  const last = resting;
  resting = `${screenX} ${screenY}`;
  return resting !== last;
}
addEventListener("pointerdown", hasMoved, true);

/**
 * Mutable: a list box of tokens. `onLook(token, isMeant)`: the token under pointer or focus, `isMeant` if it was opened.
 *
 * A token is { text, logprob, top: [{ text, logprob }], numAsked, id, index, node }: `logprob` is null for a first token
 * without prediction, and `top` has the `numAsked` likeliest tokens and the token itself.
 */
export class TokenStrip {
  tokens = [];
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #current = 0;
  #hovered = null;

  constructor(label, { onLook, onLeave }) {
    this.node = make("div", {
      class: "tokens", role: "listbox", "aria-label": label, "aria-orientation": "horizontal", dir: "auto",
      onpointermove: (event) => event.pointerType === "mouse" && hasMoved(event) && this.#at(event, (token) => this.#hover(token, onLook)),
      onpointerleave: () => {
        this.#hovered = null;
        onLeave();
      },
      onclick: (event) => this.#at(event, (token) => {
        this.#focus(token.index);
        onLook(token, true);
      }),
      onfocusin: (event) => this.#at(event, (token) => {
        this.#roveTo(token.index);
        if (event.target.matches(":focus-visible")) onLook(token, false);
      }),
      onkeydown: (event) => this.#onKey(event, onLook),
    });
  }

  /** The text of the tokens before `index`, by default of all. */
  textBefore(index = this.tokens.length) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const shown = this.tokens.slice(0, index).filter(({ text }) => !isSpecial(text));
    return shown.map(({ text }) => decoder.decode(bytesOf(text), { stream: true })).join("");
  }

  add(token, { isKept = false, isChosen = false } = {}) {
    const special = isSpecial(token.text);
    const shown = special ? "" : this.#decoder.decode(bytesOf(token.text), { stream: true });
    const index = this.tokens.length;
    const likelihood = token.logprob === null ? "no prediction" : formatProbability(token.logprob);
    const node = make("span", {
      role: "option", class: "token", tabindex: index === this.#current ? "0" : "-1", "data-index": index,
      "aria-selected": "false", "aria-label": `${spell(token.text)}, ${likelihood}`,
    });
    if (special) node.classList.add("special");
    else if (shown === "") node.classList.add("partial");
    if (isKept) node.classList.add("kept");
    if (isChosen) node.classList.add("chosen");
    if (token.logprob !== null) {
      node.classList.add("rated");
      if (token.logprob < UNLIKELY) node.classList.add(token.logprob < RARE ? "rare" : "unlikely");
      node.style.setProperty("--share", surpriseOf(token.logprob).toFixed(3));
    }
    if (special || shown === "") node.textContent = spell(token.text);
    else node.append(...shown.split("\n").flatMap((line, at) => (at ? [lineEnd(), `\n${line}`] : [line])));
    this.tokens.push(Object.assign(token, { index, node }));
    this.node.append(node);
    return token;
  }

  /** Strikes out the tokens from `start` on that a stop sequence cut off the text. */
  cutAfter(text, start) {
    const encoder = new TextEncoder();
    let room = encoder.encode(text).length;
    for (const token of this.tokens.slice(start)) {
      room -= encoder.encode(token.text).length;
      if (room < 0) token.node.classList.add("cut");
    }
  }

  #hover(token, onLook) {
    if (token === this.#hovered) return;
    this.#hovered = token;
    onLook(token, false);
  }

  #at(event, use) {
    const node = event.target.closest("[data-index]");
    if (node) use(this.tokens[node.dataset.index]);
  }

  #roveTo(index) {
    this.tokens[this.#current]?.node.setAttribute("tabindex", "-1");
    this.#current = index;
    this.tokens[index].node.setAttribute("tabindex", "0");
  }

  #focus(index) {
    if (index < 0 || index >= this.tokens.length) return;
    this.#roveTo(index);
    this.tokens[index].node.focus();
  }

  #onKey(event, onLook) {
    const token = this.tokens[this.#current];
    if (!token || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = {
      ArrowLeft: () => this.#focus(token.index - 1),
      ArrowRight: () => this.#focus(token.index + 1),
      ArrowUp: () => this.#focusLine(token, -1),
      ArrowDown: () => this.#focusLine(token, 1),
      Home: () => this.#focus(0),
      End: () => this.#focus(this.tokens.length - 1),
      Enter: () => onLook(token, true),
      " ": () => onLook(token, true),
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    steps[event.key]();
  }

  /** Moves to the nearest token in the line above or below. */
  #focusLine(token, direction) {
    const boxes = this.tokens.map(({ node }) => node.getClientRects()[0] ?? node.getBoundingClientRect());
    const from = boxes[token.index];
    const away = boxes.filter(({ top }) => direction * (top - from.top) >= 4).map(({ top }) => direction * top);
    const line = direction * Math.min(...away);
    const distances = boxes.map(({ top, left }) => (Math.abs(top - line) < 4 ? Math.abs(left - from.left) : Infinity));
    if (away.length) this.#focus(distances.indexOf(Math.min(...distances)));
  }
}
