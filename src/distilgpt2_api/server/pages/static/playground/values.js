// Values of the form: whether they are valid, and as fields of a request.

import { REGISTER } from "./register.js";

const UNESCAPED = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };
const linesOf = (value) => value.split("\n").filter(Boolean);
const idsOf = (value) => value.split(/[\s,]+/).filter(Boolean);
const pairsOf = (value) => value.split(",").filter((item) => item.trim()).map((item) => item.split(":").map((part) => part.trim()));
const isNumber = (text) => text !== "" && Number.isFinite(Number(text));
const isId = (text) => /^\d{1,9}$/.test(text);
const isBias = ([id, bias = "", ...rest]) => isId(id) && !rest.length && isNumber(bias) && Math.abs(bias) <= 100;

/** By kind: texts of a form to a request's field, and back. */
const READ = {
  seed: Number,
  number: Number,
  text: String,
  lines: (value) => linesOf(value).map((line) => line.replace(/\\[nt\\]/g, (escape) => UNESCAPED[escape])),
  ids: (value) => idsOf(value).map(Number),
  bias: (value) => Object.fromEntries(pairsOf(value).map(([id, bias]) => [Number(id), Number(bias)])),
};
const WRITE = {
  lines: (lines) => lines.map((line) => line.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\t", "\\t")).join("\n"),
  ids: (ids) => ids.join(", "),
  bias: (bias) => Object.entries(bias).map((pair) => pair.join(": ")).join(", "),
};

/** A request's field for a valid value; undefined if it may be left out. `isSent`: also if it has no effect. */
export function fieldOf({ kind, neutral, on = true }, value, isSent) {
  if (kind === "toggle") return value || isSent ? value === on : undefined;
  return !value.trim() || (Number(value) === neutral && !isSent) ? undefined : READ[kind](value);
}

/** The form's value of a request's field. */
export const valueOf = ({ kind, on = true }, field) => (kind === "toggle" ? field === on : (WRITE[kind] ?? String)(field));

/** The numbers that the service accepts. `most`: this service's own limit, if it has told one. */
export function boundsOf({ name, min, max, least }, most) {
  return [least ?? REGISTER[name]?.min ?? min, most ?? REGISTER[name]?.max ?? max];
}

/** What is wrong with a value of the form `values`, as a sentence; null if nothing is. `most` as in `boundsOf`. */
export function problemOf(parameter, values, most) {
  const { kind, name, label, step } = parameter;
  const value = values[name];
  if (kind === "number") {
    const [min, max] = boundsOf(parameter, most);
    if (!isNumber(value) || value < min || value > max || (step === 1 && !Number.isInteger(Number(value)))) {
      return `${label} must be a ${step === 1 ? "whole " : ""}number from ${min} to ${max}.`;
    }
    if (name === "min_tokens" && Number(value) > Number(values.max_tokens)) {
      return `The minimum length must be at most the length, ${values.max_tokens}.`;
    }
  }
  if (kind === "seed" && value && !Number.isSafeInteger(Number(value))) {
    return `A seed must be a whole number. This page can send up to ${Number.MAX_SAFE_INTEGER}; the API accepts larger ones.`;
  }
  if (kind === "ids" && !idsOf(value).every(isId)) return "Token ids must be whole numbers, such as 11, 262.";
  if (kind === "bias" && !pairsOf(value).every(isBias)) return "Write token ids with numbers from -100 to 100, such as 262: -5, 11: 2.";
  if (name === "bad_words" && linesOf(value).some((line) => !line.trim())) return "A line has only spaces: remove it.";
  return null;
}
