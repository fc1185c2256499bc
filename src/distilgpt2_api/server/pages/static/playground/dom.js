// Building elements. Text is only ever set as text: a model may write anything, including HTML.

export const find = (id) => document.getElementById(id);

/** An element. `text` is its text, `onclick` and the like are listeners, all others are attributes; unset ones are skipped. */
export function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

export function makeButton(text, onclick, label, options) {
  return make("button", { class: "quiet", text, onclick, "aria-label": label, ...options });
}

/** Announces the text to screen readers, after what they are reading. */
export function announce(text) {
  find("announcer").textContent = text;
}

/** Does what may remove or hide the focused element, and then focuses that element again, or else the one of `next()`. */
export function keepFocus(act, next) {
  const focused = document.activeElement;
  act();
  if (focused === document.body || ![focused, document.body].includes(document.activeElement)) return;
  (focused.checkVisibility() ? focused : next()).focus({ preventScroll: true });
}

export function formatCount(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

/** The unit stays in the line of its number. */
export function formatDuration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)}\u00a0ms` : `${(milliseconds / 1000).toFixed(2)}\u00a0s`;
}

export function formatProbability(logprob) {
  const percent = 100 * Math.exp(logprob);
  if (percent >= 99.95) return "100\u00a0%";
  if (percent < 0.01) return "< 0.01\u00a0%";
  return `${percent >= 10 ? percent.toFixed(0) : percent >= 1 ? percent.toFixed(1) : percent.toFixed(2)}\u00a0%`;
}

/** Three significant digits, without an exponent. */
export function formatFigure(value) {
  return value < 1000 ? value.toPrecision(3) : Math.round(value).toLocaleString("en");
}
