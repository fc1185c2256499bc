// What a request asks for, and what the page adds to it to colour tokens and to branch.

import { PARAMETERS } from "./parameters.js";

/** The page's own fields: they change what an answer lists, never its text. */
const OWN = new Set(["stream", "return_token_ids", "logprobs", "top_logprobs", "timings"]);
const LABELS = new Map(PARAMETERS.map(({ name, label }) => [name, label.toLowerCase()]));
const ALIASES = { max_completion_tokens: "max_tokens" };

export function withoutOwn(request) {
  return Object.fromEntries(Object.entries(request).filter(([name, value]) => !OWN.has(name) && value !== undefined));
}

/** The parameters of a request, by name: all but its model and its prompt. */
export function settingsOf(request) {
  const { model: _, prompt: __, messages: ___, ...settings } = withoutOwn(request);
  return settings;
}

/** A parameter's name for people. */
export const labelOf = (name) => LABELS.get(ALIASES[name] ?? name) ?? name;

export const valueText = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

/** The names of the parameters in which these requests differ. */
export function differencesOf(requests) {
  const all = requests.map(settingsOf);
  const names = new Set(all.flatMap(Object.keys));
  return new Set([...names].filter((name) => new Set(all.map((one) => JSON.stringify(one[name]))).size > 1));
}
