// Values in the browser's storage. If storage is blocked, they last as long as the page.

import { ROOT } from "./api.js";

const PREFIX = `distilgpt2-playground:${ROOT.pathname}:`;
/** Browsers throw at the access if storage is blocked. */
const STORES = [() => localStorage, () => sessionStorage];
const memory = new Map();

/** Null if storage is blocked or full, or a value is not our JSON. */
function attempt(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

/** The value under a name, or null: from local storage, the tab's session storage, or memory. */
export function recall(name) {
  const [lasting, ofTab] = STORES.map((store) => attempt(() => JSON.parse(store().getItem(PREFIX + name))));
  return lasting ?? ofTab ?? memory.get(name) ?? null;
}

export function keep(name, value, { isLasting = true } = {}) {
  forget(name);
  memory.set(name, value);
  attempt(() => STORES[isLasting ? 0 : 1]().setItem(PREFIX + name, JSON.stringify(value)));
}

export function forget(name) {
  memory.delete(name);
  for (const store of STORES) attempt(() => store().removeItem(PREFIX + name));
}
