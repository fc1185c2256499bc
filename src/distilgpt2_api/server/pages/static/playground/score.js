// Scores: how likely the model finds a given text.

import { alternatives } from "./alternatives.js";
import { getJson, postJson } from "./api.js";
import { announce, formatCount, formatFigure, formatProbability, make } from "./dom.js";
import { TokenStrip, likeliestFirst, spell } from "./tokens.js";

const NUM_ALTERNATIVES = 5;
const NOTE = "The tokens that the model expected here. Choose one to continue from there.";

/** Mutable: the score on the page. `onBranch(card, index, alternative)` as in AnswerCard; `readService()` gives { model }. */
export class Score {
  #endOfText;

  constructor(root, callbacks) {
    Object.assign(this, { root }, callbacks);
  }

  /** Shows the text's score. Throws the service's errors. */
  async show(text) {
    const { model } = this.readService();
    const { data: [score] } = await postJson("v1/score", { model, input: text, token_logprobs: true });
    const before = await this.#endOfTextIds();
    const request = { model, prompt: [...before, ...score.token_ids], max_tokens: 0, echo: true, logprobs: NUM_ALTERNATIVES };
    const { choices: [{ logprobs }] } = await postJson("v1/completions", request);
    const tops = logprobs.top_logprobs.slice(-score.tokens.length).map(likeliestFirst);
    const tokens = score.tokens.map((token, index) => ({
      text: token, id: score.token_ids[index], logprob: score.token_logprobs[index], top: tops[index], numAsked: NUM_ALTERNATIVES,
    }));
    this.#draw(score, tokens, before);
    announce(`Perplexity ${formatFigure(score.perplexity)} over ${formatCount(tokens.length, "token")}`);
  }

  #draw(score, tokens, before) {
    // The parts of an AnswerCard that a branch needs.
    const source = { promptIds: before, origin: { promptText: "" }, node: this.root };
    const strip = new TokenStrip("Tokens of the text", {
      onLook: (token, isMeant) => alternatives.look(token, isMeant, {
        note: NOTE,
        onBranch: before.length ? ((at, alternative) => this.onBranch(source, at.index, alternative)) : null,
      }),
      onLeave: () => alternatives.leave(),
    });
    for (const token of tokens) strip.add(token);
    source.strip = strip;
    source.idsBefore = (index) => [...before, ...tokens.slice(0, index).map(({ id }) => id)];
    const least = tokens.reduce((worst, token) => (token.logprob < worst.logprob ? token : worst));
    const figures = [
      ["Perplexity", formatFigure(score.perplexity), "The model is as uncertain as if it chose among this many tokens. Lower is better."],
      ["Bits per byte", score.bits_per_byte?.toFixed(3) ?? "–", "Comparable between models with different tokenizers."],
      ["Tokens", String(score.num_tokens), score.is_greedy ? "Each is the likeliest at its position." : `${score.num_bytes} bytes of text.`],
      ["Most surprising token", spell(least.text), `Its probability was ${formatProbability(least.logprob)}.`],
    ];
    const tiles = figures.map(([name, value, help]) => make("div", { class: "card tile" },
      make("dt", { text: name }), make("dd", { class: "figure", text: value }), make("dd", { class: "help", text: help })));
    this.root.replaceChildren(
      make("dl", { class: "tiles" }, ...tiles),
      make("article", { class: "card answer", "aria-label": "The scored text" }, make("div", { class: "story" }, strip.node)),
    );
  }

  /** A text's first token is scored after the end-of-text token. */
  async #endOfTextIds() {
    if (!this.#endOfText) {
      const { eos_token: text } = await getJson("tokenizer_info");
      this.#endOfText = text ? (await postJson("tokenize", { prompt: text })).tokens : [];
    }
    return this.#endOfText;
  }
}
