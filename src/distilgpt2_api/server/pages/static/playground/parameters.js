// The parameters of the form, explained for first-time users. The names are those of the request.

import { REGISTER } from "./register.js";

/** `min` and `max` are the slider's range; the register's bounds and texts apply if it has the parameter. */
const number = (name, label, min, max, step, help = REGISTER[name].help, neutral = REGISTER[name]?.neutral) => ({
  name, label, kind: "number", min, max, step, neutral, help,
});
const other = (kind, name, label, help, options) => ({ kind, name, label, help, ...options });

const PLACED = {
  Basics: [
    number("max_tokens", "Length", 1, 500, 1, "Maximum number of tokens. A token is a short word or a part of one.", 100),
    { ...number("n", "Answers", 1, 8, 1, "Number of answers, generated in parallel.", 1), views: ["write"] },
    number("temperature", "Temperature", 0, 2, 0.05, "0 always takes the likeliest token. Higher values are more varied."),
    number("top_p", "Top p", 0, 1, 0.01),
    other("seed", "seed", "Seed", "The same seed samples the same text. Unlocked or -1: each run uses a new one."),
  ],
  "More filters": [
    number("top_k", "Top k", 0, 200, 1),
    number("min_p", "Min p", 0, 1, 0.01),
    { ...number("typical_p", "Typical p", 0.05, 1, 0.01), least: 0.01 },
    number("top_n_sigma", "Top n sigma", -1, 5, 0.1),
    number("xtc_probability", "XTC probability", 0, 1, 0.01),
    number("xtc_threshold", "XTC threshold", 0, 1, 0.01),
  ],
  Repetition: [
    number("repetition_penalty", "Repetition penalty", 0.5, 2, 0.01),
    number("presence_penalty", "Presence penalty", -2, 2, 0.1),
    number("frequency_penalty", "Frequency penalty", -2, 2, 0.1),
    number("repeat_last_n", "Penalty window", -1, 500, 1),
    number("dry_multiplier", "DRY multiplier", 0, 5, 0.1),
    number("dry_base", "DRY base", 1, 4, 0.05),
    number("dry_allowed_length", "DRY allowed length", 1, 20, 1),
    number("dry_penalty_last_n", "DRY window", -1, 500, 1),
    other("lines", "dry_sequence_breakers", "DRY breakers", "Texts that a repetition never spans, one per line. \\n is a line break."),
    number("no_repeat_ngram_size", "No repeated n-gram", 0, 10, 1),
  ],
  Ending: [
    number("min_tokens", "Minimum length", 0, 500, 1),
    other("lines", "stop", "Stop at", "Texts that end the answer, one per line. \\n is a line break."),
    other("toggle", "include_stop_str_in_output", "Show the stop text", "Keeps it at the answer's end."),
    other("ids", "stop_token_ids", "Stop at tokens", "Token ids, separated by commas."),
    other("toggle", "ignore_eos", "Ignore the end", "The end-of-text token does not end the answer."),
  ],
  Steering: [
    other("lines", "bad_words", "Never say", "Words that the answer must not contain, one per line."),
    other("text", "guided_regex", "Pattern (regex)", "The whole answer matches this regular expression, such as “ [A-Z][a-z]+\\.”"),
    other("bias", "logit_bias", "Bias", "Token ids and the values to add to their logits: 262: -5, 11: 2"),
    other("ids", "allowed_token_ids", "Only these tokens", "Token ids. No other token is sampled."),
  ],
  Display: [
    number("logprobs", "Alternatives", 0, 20, 1, "Number of likeliest tokens to list at each position.", 5),
    other("toggle", "skip_special_tokens", "Show special tokens", "Keeps them in the text.", { on: false }),
  ],
};

const placed = new Set(Object.values(PLACED).flat().map(({ name }) => name));
/** Parameters of the service that are not in a group above. */
const more = Object.entries(REGISTER).filter(([name]) => !placed.has(name)).map(([name, { min, max, step, neutral, help }]) => (
  typeof neutral === "boolean" ? other("toggle", name, name, help, { on: !neutral }) : number(name, name, min, max, step)
));

/** Lists of parameters by title. */
export const GROUPS = Object.entries({ ...PLACED, More: more }).filter(([, group]) => group.length);
export const PARAMETERS = GROUPS.flatMap(([, group]) => group);
/** As in vLLM and llama.cpp. */
export const NO_SEED = -1;

/** Always sent: the service's default differs, or the page must know the value. */
export const ALWAYS_SENT = new Set(["max_tokens", "seed", "logprobs", "temperature"]);
/** Presets keep the values of these. */
export const KEPT = new Set(["max_tokens", "n", "seed", "logprobs"]);

/** A preset's `example`: a prompt that shows its effect, against a request `without` it. */
export const PRESETS = [
  { name: "Balanced", help: "Sensible and varied.", values: { temperature: 0.8, top_k: 50, top_p: 0.95 } },
  { name: "Careful", help: "Always the likeliest token.", values: { temperature: 0, repetition_penalty: 1.1 } },
  { name: "Story", help: "More varied, with less repetition.", values: { temperature: 0.9, min_p: 0.05, repetition_penalty: 1.08 } },
  {
    name: "No loops", help: "The likeliest token, but no repetitions (DRY).", values: { temperature: 0, dry_multiplier: 0.8 },
    example: { text: "Once upon a time there lived a king", without: { dry_multiplier: 0 } },
  },
  { name: "Wild", help: "Very varied, and often strange.", values: { temperature: 1.4, min_p: 0.01 } },
  { name: "Pure", help: "The model's own distribution, without filters.", values: {} },
];

export const neutralOf = (parameter) => parameter.neutral ?? (parameter.kind === "toggle" ? false : "");
