// Answers as JSON or Markdown, with the settings that made them.

import { endingOf } from "./answers.js";
import { download } from "./clipboard.js";
import { labelOf, settingsOf, valueText } from "./requests.js";

/** A token of a stored record, as in an export. */
const tokenOf = ([text, id, logprob]) => ({ text, id, logprob });

function toJson(records) {
  const answers = records.map((record) => ({
    title: record.title,
    time: new Date(record.time).toISOString(),
    model: record.request.model ?? null,
    prompt: record.promptText,
    text: textOf(record),
    finish_reason: record.finishReason,
    stop_reason: record.stopReason,
    settings: settingsOf(record.request),
    tokens_per_s: record.figures.rate,
    first_token_ms: record.figures.firstTokenMs,
    num_tokens_before: record.numKept,
    tokens: record.tokens.map(tokenOf),
  }));
  return `${JSON.stringify({ answers }, null, 2)}\n`;
}

function toMarkdown(records) {
  const parts = records.map((record) => {
    const rows = [["model", record.request.model ?? ""], ...Object.entries(settingsOf(record.request)),
      ["ending", endingOf(record.finishReason, record.stopReason)]];
    const cell = (text) => text.replace(/[\\|`*_<>[\]]/g, "\\$&").replaceAll("\n", " ");
    const table = rows.map(([name, value]) => `| ${cell(labelOf(name))} | ${cell(valueText(value))} |\n`).join("");
    return `## ${record.title}, ${new Date(record.time).toISOString()}\n\n| setting | value |\n|---|---|\n${table}
Prompt:\n\n${fenced(record.promptText)}\nAnswer:\n\n${fenced(textOf(record))}`;
  });
  return `# Answers\n\n${parts.join("\n")}`;
}

/** The whole text after the prompt, with what a branch took from its parent. */
function textOf(record) {
  return record.keptText + record.text;
}

/** A model may write anything, also fences. */
function fenced(text) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}text\n${text}\n${fence}\n`;
}

/** Saves the answers of these cards as a file. */
export function exportAnswers(cards, format) {
  const records = cards.map((card) => ({ ...card.record, keptText: card.keptText }));
  const [write, type] = format === "json" ? [toJson, "application/json"] : [toMarkdown, "text/markdown"];
  download(new Blob([write(records)], { type }), `answers.${format === "json" ? "json" : "md"}`);
}
