// Values in the browser's storage. If storage is blocked, they last as long as the page.

import { ROOT } from "./api.js";

const PREFIX = `distilgpt2-playground:${ROOT.pathname}:`;
const memory = new Map();

function storeOf(isLasting) {
  try {
    return isLasting ? localStorage : sessionStorage;
  } catch {
    return null;
  }
}

/** The value under a name, or null: from local storage, the tab's session storage, or memory. */
export function recall(name) {
  for (const isLasting of [true, false]) {
    try {
      const text = storeOf(isLasting)?.getItem(PREFIX + name);
      if (text) return JSON.parse(text);
    } catch {
      // Blocked, or not our JSON.
    }
  }
  return memory.get(name) ?? null;
}

export function keep(name, value, { isLasting = true } = {}) {
  memory.set(name, value);
  try {
    storeOf(!isLasting)?.removeItem(PREFIX + name);
    storeOf(isLasting)?.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Blocked or full.
  }
}

export function forget(name) {
  memory.delete(name);
  for (const isLasting of [true, false]) {
    try {
      storeOf(isLasting)?.removeItem(PREFIX + name);
    } catch {
      // Blocked: nothing is stored.
    }
  }
}
