// How likely the model finds a text that somebody else wrote.

import { alternatives } from "./alternatives.js";
import { getJson, postJson } from "./api.js";
import { announce, formatCount, formatFigure, formatProbability, make } from "./dom.js";
import { TokenStrip, likeliestFirst, spell } from "./tokens.js";

const NUM_ALTERNATIVES = 5;
const NOTE = "What the model expected here. Choose one to let it write on from there.";

/** Mutable: the one score shown. `onBranch(card, index, alternative)` as an answer's; `readService()` gives { model }. */
export class Score {
  #endOfText;

  constructor(root, callbacks) {
    Object.assign(this, { root }, callbacks);
  }

  /** Shows the text's score. Throws what the service answers. */
  async show(text) {
    const { model } = this.readService();
    const named = model ? { model } : {};
    const answer = await postJson("v1/score", { ...named, input: text, token_logprobs: true });
    const [score] = answer.data;
    const before = await this.#endOfTextIds(named);
    const tops = await this.#alternatives(named, [...before, ...score.token_ids], score.tokens.length);
    const tokens = score.tokens.map((token, index) => ({
      text: token, id: score.token_ids[index], logprob: score.token_logprobs[index], top: tops[index] ?? [], numAsked: NUM_ALTERNATIVES,
    }));
    this.#draw(score, tokens, before);
    announce(`Perplexity ${formatFigure(score.perplexity)} over ${formatCount(tokens.length, "token")}`);
  }

  #draw(score, tokens, before) {
    // As much of an answer as a branch needs of one.
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
      ["Perplexity", formatFigure(score.perplexity), "As if it chose among so many tokens each time. Lower is better."],
      ["Bits per byte", score.bits_per_byte?.toFixed(3) ?? "–", "Comparable between models with other tokens."],
      ["Tokens", String(score.num_tokens), score.is_greedy ? "Each is the likeliest at its place." : `${score.num_bytes} bytes of text.`],
      ["Greatest surprise", spell(least.text), `It had a chance of ${formatProbability(least.logprob)}.`],
    ];
    const tiles = figures.map(([name, value, help]) => make("div", { class: "tile" },
      make("dt", { text: name }), make("dd", { class: "figure", text: value }), make("dd", { class: "help", text: help })));
    this.root.replaceChildren(
      make("dl", { class: "tiles" }, ...tiles),
      make("article", { class: "card answer", "aria-label": "The scored text" }, make("div", { class: "story" }, strip.node)),
    );
  }

  /** What the model expected at each of the last `count` places. */
  async #alternatives(named, ids, count) {
    const request = { ...named, prompt: ids, max_tokens: 0, echo: true, logprobs: NUM_ALTERNATIVES };
    const answer = await postJson("v1/completions", request);
    return answer.choices[0].logprobs.top_logprobs.slice(-count).map(likeliestFirst);
  }

  /** A text's first token is scored after the end of text, as if a new one began. */
  async #endOfTextIds(named) {
    if (!this.#endOfText) {
      const { eos_token: text } = await getJson("tokenizer_info");
      this.#endOfText = text ? (await postJson("tokenize", { ...named, prompt: text })).tokens : [];
    }
    return this.#endOfText;
  }
}
