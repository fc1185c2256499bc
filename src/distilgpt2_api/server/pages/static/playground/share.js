// A link to this page with a prompt and its settings. They are in the fragment, which browsers never send.

import { ROOT } from "./api.js";
import { PARAMETERS, neutralOf } from "./parameters.js";

/** `texts`: { view, prompt, system }, of which empty ones are left out. */
export function linkTo(texts, values) {
  const fields = Object.entries(texts).filter(([, text]) => text);
  for (const parameter of PARAMETERS) {
    const value = values[parameter.name];
    const isLeftOut = parameter.kind === "seed" ? !values.isSeedLocked : String(value) === String(neutralOf(parameter));
    if (!isLeftOut) fields.push([parameter.name, value === true ? "on" : value]);
  }
  const link = new URL(location.pathname, ROOT);
  link.hash = new URLSearchParams(fields);
  return link.href;
}

/** What the page's address says, or null: { texts, values }. Removes it from the address, so that a reload does not repeat it. */
export function takeLink() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const names = new Set([...fields.keys()]);
  if (!["prompt", "view", ...PARAMETERS.map(({ name }) => name)].some((name) => names.has(name))) return null;
  history.replaceState(null, "", location.pathname + location.search);
  const values = { isSeedLocked: names.has("seed") };
  for (const { name, kind } of PARAMETERS) {
    if (names.has(name)) values[name] = kind === "toggle" ? fields.get(name) === "on" : fields.get(name);
  }
  return { texts: { view: fields.get("view"), prompt: fields.get("prompt"), system: fields.get("system") }, values };
}
