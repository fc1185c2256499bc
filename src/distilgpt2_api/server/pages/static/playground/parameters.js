// What can be set, in words for people who have never set it. The names are the request's.

import { REGISTER } from "./register.js";

/** `neutral`: of a parameter that is not in the register. */
const number = (name, label, min, max, step, help, neutral = REGISTER[name].neutral) => ({
  name, label, kind: "number", min, max, step, neutral, help,
});

const PLACED = [
  {
    title: "Answer",
    isOpen: true,
    parameters: [
      number("max_tokens", "Length", 1, 500, 1, "Tokens to write at most. A token is a short word or a piece of one.", 80),
      number("n", "Answers", 1, 8, 1, "Drawn side by side, in one request.", 1),
      { name: "seed", label: "Seed", kind: "seed", help: "The same seed draws the same text. Unlocked, or with -1, each run takes a new one." },
    ],
  },
  {
    title: "Choice of words",
    isOpen: true,
    parameters: [
      number("temperature", "Temperature", 0, 2, 0.05, "0 always takes the likeliest token. Higher is bolder, above 1 it gets strange."),
      number("top_k", "Top k", 0, 200, 1, "Draws among the k likeliest tokens only. 0 is off."),
      number("top_p", "Top p", 0, 1, 0.01, "Draws among the likeliest tokens that together have this probability."),
      number("min_p", "Min p", 0, 1, 0.01, "Drops tokens less likely than this share of the likeliest one."),
      number("typical_p", "Typical p", 0.05, 1, 0.01, "Prefers tokens about as surprising as the model expects. 1 is off."),
    ],
  },
  {
    title: "Repetition",
    parameters: [
      number("repetition_penalty", "Repetition penalty", 0.5, 2, 0.01, "Above 1: tokens that were there before, prompt included, get less likely."),
      number("presence_penalty", "Presence penalty", -2, 2, 0.1, "Takes a fixed amount off tokens that the answer has already."),
      number("frequency_penalty", "Frequency penalty", -2, 2, 0.1, "Takes off more, the more often the answer has the token."),
      number("no_repeat_ngram_size", "No repeated n-gram", 0, 10, 1, "No sequence of so many tokens comes twice. 0 is off."),
    ],
  },
  {
    title: "Ending",
    parameters: [
      number("min_tokens", "Least length", 0, 500, 1, "The text does not end before so many tokens."),
      { name: "stop", label: "Stop at", kind: "lines", help: "Texts that end the answer, one a line. \\n is a line end." },
      { name: "include_stop_str_in_output", label: "Show the stop text", kind: "toggle", help: "Leaves it at the answer's end." },
      { name: "stop_token_ids", label: "Stop at tokens", kind: "ids", help: "Token ids, with commas between." },
      { name: "ignore_eos", label: "Write on after the end", kind: "toggle", help: "The end of text is a token like any other." },
      { name: "skip_special_tokens", label: "Show special tokens", kind: "toggle", on: false, help: "Leaves them in the text." },
    ],
  },
  {
    title: "Steering",
    parameters: [
      { name: "bad_words", label: "Never say", kind: "lines", help: "Words that the answer must not have, one a line." },
      { name: "guided_regex", label: "Form", kind: "text", help: "A regular expression that the whole answer matches, such as “ [A-Z][a-z]+\\.”" },
      { name: "logit_bias", label: "Bias", kind: "bias", help: "Token ids and what to add to their logits: 262: -5, 11: 2" },
      { name: "allowed_token_ids", label: "Only these tokens", kind: "ids", help: "Token ids; nothing else is drawn." },
      number("logprobs", "Alternatives", 0, 20, 1, "How many likely tokens to list at each place.", 5),
    ],
  },
];

const placed = new Set(PLACED.flatMap((group) => group.parameters.map(({ name }) => name)));
/** Parameters of the service that have no place above yet. */
const more = Object.entries(REGISTER).filter(([name]) => !placed.has(name)).map(([name, { min, max, step, neutral, help }]) => (
  typeof neutral === "boolean"
    ? { name, label: name, kind: "toggle", on: !neutral, help }
    : number(name, name, min, max, step, help)
));

export const GROUPS = more.length ? [...PLACED, { title: "More", parameters: more }] : PLACED;
export const PARAMETERS = GROUPS.flatMap((group) => group.parameters);
/** As in vLLM and llama.cpp, whose users type it. */
export const NO_SEED = -1;

/** Sent even where they are as the service has them: its default is another, or one that the page must know. */
export const ALWAYS_SENT = new Set(["max_tokens", "seed", "logprobs", "temperature"]);
/** What a preset leaves as it is, unless it says otherwise. */
export const KEPT = new Set(["max_tokens", "n", "seed", "logprobs"]);

export const PRESETS = [
  { name: "Balanced", help: "Sensible and varied", values: { temperature: 0.8, top_k: 50, top_p: 0.95 } },
  { name: "Careful", help: "Always the likeliest token", values: { temperature: 0, repetition_penalty: 1.1 } },
  { name: "Story", help: "Long, and without going in circles", values: { max_tokens: 220, temperature: 0.9, min_p: 0.05, repetition_penalty: 1.08 } },
  { name: "Wild", help: "Anything may come", values: { temperature: 1.4, min_p: 0.01 } },
  { name: "Pure", help: "The model's own distribution, nothing cut", values: {} },
];

/** A value that the page can't send as it stands there; `param` is its field's name. */
export class FieldError extends Error {
  constructor(param, message) {
    super(`${param}: ${message}`);
    this.param = param;
  }
}

const UNESCAPED = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };

/** The field of a request for what stands in the form: undefined where it asks for nothing. Throws FieldError. */
export function fieldOf(parameter, value) {
  const { kind, name, neutral } = parameter;
  if (value === "" || value === false) return undefined;
  if (kind === "seed" && Math.abs(Number(value)) > Number.MAX_SAFE_INTEGER) {
    throw new FieldError(name, `this page can send whole numbers up to ${Number.MAX_SAFE_INTEGER}; the API takes larger ones`);
  }
  if (kind === "number" || kind === "seed") {
    return Number(value) === neutral && !ALWAYS_SENT.has(name) ? undefined : Number(value);
  }
  if (kind === "toggle") return parameter.on ?? value;
  if (kind === "text") return value;
  if (kind === "lines") {
    const lines = value.split("\n").filter(Boolean);
    return lines.length ? lines.map((line) => line.replace(/\\[nt\\]/g, (escape) => UNESCAPED[escape])) : undefined;
  }
  if (kind === "ids") return value.split(/[\s,]+/).filter(Boolean).map(numberOf);
  return Object.fromEntries(
    value.split(",").filter((item) => item.trim()).map((item) => {
      const [id, ...bias] = item.split(":");
      return [String(numberOf(id)), numberOf(bias.join(":"))];
    }),
  );
}

/** What is no number is left for the service to refuse, in its own words. */
function numberOf(text) {
  const trimmed = text.trim();
  return trimmed && Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
}
