// The parameters of the form, explained for first-time users. The names are those of the request.

import { REGISTER } from "./register.js";

/** `neutral`: only for parameters that are not in the register. */
const number = (name, label, min, max, step, help, neutral = REGISTER[name].neutral) => ({
  name, label, kind: "number", min, max, step, neutral, help,
});

const PLACED = [
  {
    title: "Answer",
    isOpen: true,
    parameters: [
      number("max_tokens", "Length", 1, 500, 1, "Maximum number of tokens. A token is a short word or a part of one.", 80),
      number("n", "Answers", 1, 8, 1, "Number of answers, generated in parallel by one request.", 1),
      { name: "seed", label: "Seed", kind: "seed", help: "The same seed samples the same text. If it is unlocked or -1, each run uses a new one." },
    ],
  },
  {
    title: "Choice of words",
    isOpen: true,
    parameters: [
      number("temperature", "Temperature", 0, 2, 0.05, "0 always takes the likeliest token. Higher values are more varied; above 1 the text gets strange."),
      number("top_k", "Top k", 0, 200, 1, "Samples from the k likeliest tokens only. 0 is off."),
      number("top_p", "Top p", 0, 1, 0.01, "Samples from the likeliest tokens that together have this probability. 1 is off."),
      number("min_p", "Min p", 0, 1, 0.01, "Drops tokens below this fraction of the likeliest token's probability. 0 is off."),
      number("typical_p", "Typical p", 0.05, 1, 0.01, "Prefers tokens about as surprising as the model expects. 1 is off."),
    ],
  },
  {
    title: "Repetition",
    parameters: [
      number("repetition_penalty", "Repetition penalty", 0.5, 2, 0.01, "Above 1, tokens that already occurred, in the prompt or the answer, get less likely."),
      number("presence_penalty", "Presence penalty", -2, 2, 0.1, "Subtracts a fixed amount from the logits of tokens that the answer already has."),
      number("frequency_penalty", "Frequency penalty", -2, 2, 0.1, "Subtracts more, the more often the answer has the token."),
      number("no_repeat_ngram_size", "No repeated n-gram", 0, 10, 1, "No sequence of this many tokens occurs twice. 0 is off."),
    ],
  },
  {
    title: "Ending",
    parameters: [
      number("min_tokens", "Minimum length", 0, 500, 1, "The text does not end before this many tokens."),
      { name: "stop", label: "Stop at", kind: "lines", help: "Texts that end the answer, one per line. \\n is a line break." },
      { name: "include_stop_str_in_output", label: "Show the stop text", kind: "toggle", help: "Keeps it at the answer's end." },
      { name: "stop_token_ids", label: "Stop at tokens", kind: "ids", help: "Token ids, separated by commas." },
      { name: "ignore_eos", label: "Ignore the end", kind: "toggle", help: "The end-of-text token does not end the answer." },
      { name: "skip_special_tokens", label: "Show special tokens", kind: "toggle", on: false, help: "Keeps them in the text." },
    ],
  },
  {
    title: "Steering",
    parameters: [
      { name: "bad_words", label: "Never say", kind: "lines", help: "Words that the answer must not contain, one per line." },
      { name: "guided_regex", label: "Form", kind: "text", help: "A regular expression that the whole answer matches, such as “ [A-Z][a-z]+\\.”" },
      { name: "logit_bias", label: "Bias", kind: "bias", help: "Token ids and the values to add to their logits: 262: -5, 11: 2" },
      { name: "allowed_token_ids", label: "Only these tokens", kind: "ids", help: "Token ids. No other token is sampled." },
      number("logprobs", "Alternatives", 0, 20, 1, "Number of likeliest tokens to list at each position.", 5),
    ],
  },
];

const placed = new Set(PLACED.flatMap((group) => group.parameters.map(({ name }) => name)));
/** Parameters of the service that are not in a group above. */
const more = Object.entries(REGISTER).filter(([name]) => !placed.has(name)).map(([name, { min, max, step, neutral, help }]) => (
  typeof neutral === "boolean"
    ? { name, label: name, kind: "toggle", on: !neutral, help }
    : number(name, name, min, max, step, help)
));

export const GROUPS = more.length ? [...PLACED, { title: "More", parameters: more }] : PLACED;
export const PARAMETERS = GROUPS.flatMap((group) => group.parameters);
/** As in vLLM and llama.cpp. */
export const NO_SEED = -1;

/** Always sent: the service's default differs, or the page must know the value. */
export const ALWAYS_SENT = new Set(["max_tokens", "seed", "logprobs", "temperature"]);
/** Presets keep the values of these, unless they set them. */
export const KEPT = new Set(["max_tokens", "n", "seed", "logprobs"]);

export const PRESETS = [
  { name: "Balanced", help: "Sensible and varied", values: { temperature: 0.8, top_k: 50, top_p: 0.95 } },
  { name: "Careful", help: "Always the likeliest token", values: { temperature: 0, repetition_penalty: 1.1 } },
  { name: "Story", help: "Long, with less repetition", values: { max_tokens: 220, temperature: 0.9, min_p: 0.05, repetition_penalty: 1.08 } },
  { name: "Wild", help: "Very varied", values: { temperature: 1.4, min_p: 0.01 } },
  { name: "Pure", help: "The model's own distribution, without filters", values: {} },
];

/** A value that the page can't send. `param` is its field's name. */
export class FieldError extends Error {
  constructor(param, message) {
    super(`${param}: ${message}`);
    this.param = param;
  }
}

const UNESCAPED = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };

/** A request's field for a value of the form; undefined if the value has no effect. Throws FieldError. */
export function fieldOf(parameter, value) {
  const { kind, name, neutral } = parameter;
  if (value === "" || value === false) return undefined;
  if (kind === "seed" && Math.abs(Number(value)) > Number.MAX_SAFE_INTEGER) {
    throw new FieldError(name, `this page can send integers up to ${Number.MAX_SAFE_INTEGER}; the API accepts larger ones`);
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

/** Text that is not a number is sent as it is, so that the service refuses it with its own message. */
function numberOf(text) {
  const trimmed = text.trim();
  return trimmed && Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
}
