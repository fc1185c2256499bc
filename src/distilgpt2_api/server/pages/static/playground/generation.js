// Requests for answers: starting, stopping and branching.

import { AnswerCard, rateOf } from "./answers.js";
import { postJson, postStream } from "./api.js";
import { announce, formatCount, formatDuration } from "./dom.js";

/**
 * Mutable: the answers on the page. `readService()` gives { model, maxTokens } or nulls; `onChange(isRunning)`,
 * `onSpeed(rate, firstMs)`, `onError(error, retry)`, `onDone(run)`, `onCode(request)`.
 */
export class Generation {
  #running = new Set();
  #numRuns = 0;

  constructor(root, callbacks) {
    Object.assign(this, { root }, callbacks);
  }

  get isRunning() {
    return this.#running.size > 0;
  }

  stop() {
    const { isRunning } = this;
    for (const controller of this.#running) controller.abort();
    return isRunning;
  }

  /** Generates a prompt's answers, which replace the ones on the page. */
  async start(request) {
    const count = request.n ?? 1;
    const cards = Array.from({ length: count }, (_, index) =>
      this.#card(count > 1 ? `Answer ${index + 1}` : "Answer", request, { promptText: request.prompt }));
    this.root.replaceChildren(...cards.map(({ node }) => node));
    await this.#run(request, cards, () => this.start(request));
  }

  /** Continues an answer from a position: with `alternative` there or, without one, with newly sampled tokens. */
  async branch(card, index, alternative) {
    const retry = () => this.branch(card, index, alternative);
    const before = card.idsBefore(index);
    let chosen = null;
    try {
      if (alternative) chosen = await this.#withId(card.strip.tokens[index], alternative, before);
    } catch (error) {
      this.onError(error, retry);
      return;
    }
    const prompt = chosen ? [...before, chosen.id] : before;
    const { n: _, ...fields } = card.request;
    const room = (this.readService().maxTokens ?? Infinity) - prompt.length;
    const request = { ...fields, prompt, max_tokens: Math.max(1, Math.min(fields.max_tokens, room)) };
    if (request.min_tokens > request.max_tokens) request.min_tokens = request.max_tokens;
    this.#numRuns += 1;
    const kept = card.strip.tokens.slice(0, index);
    const origin = { promptText: card.origin.promptText, promptIds: card.promptIds, kept, chosen };
    const next = this.#card(`Branch ${this.#numRuns}`, request, origin);
    if (this.root.contains(card.node)) card.node.after(next.node);
    else this.root.replaceChildren(next.node);
    next.node.scrollIntoView({ block: "nearest" });
    await this.#run(request, [next], retry);
  }

  /** Shows answers from the history, which replace the ones on the page. */
  showPlain(promptText, texts) {
    const cards = texts.map((text, index) => {
      const card = this.#card(texts.length > 1 ? `Answer ${index + 1}` : "Answer", null, { promptText });
      card.showPlain(text);
      return card;
    });
    this.root.replaceChildren(...cards.map(({ node }) => node));
  }

  #card(title, request, origin) {
    return new AnswerCard({
      title, request, origin, onCode: this.onCode,
      onBranch: (card, index, alternative) => this.branch(card, index, alternative),
    });
  }

  /** Log-probabilities list alternatives by text. Requests the same position as a prompt token, which is listed by id. */
  async #withId(token, alternative, before) {
    const { model } = this.readService();
    const request = { ...(model && { model }), prompt: [...before, token.id], max_tokens: 0, echo: true };
    const answer = await postJson("v1/completions", { ...request, prompt_logprobs: token.top.length });
    const listed = Object.entries(answer.choices[0].prompt_logprobs.at(-1))
      .filter(([, { decoded_token: text }]) => text === alternative.text)
      .sort(([, a], [, b]) => b.logprob - a.logprob);
    if (!listed.length) throw new Error("The service now lists other tokens at this position. Generate again.");
    return { ...alternative, id: Number(listed[0][0]), top: token.top, numAsked: token.numAsked };
  }

  async #run(request, cards, retry) {
    const controller = new AbortController();
    this.#running.add(controller);
    this.onChange(true);
    announce("Generating");
    const startMs = performance.now();
    let firstMs = null;
    let reason = "interrupted";
    try {
      for await (const event of postStream("v1/completions", request, controller.signal)) {
        for (const choice of event.choices) cards[choice.index].accept(choice);
        const nowMs = performance.now();
        firstMs ??= nowMs;
        this.onSpeed(rateOf(numTokensOf(cards), startMs, firstMs, nowMs), firstMs - startMs);
      }
    } catch (error) {
      if (error.name === "AbortError") reason = "stopped";
      else {
        this.onError(error, retry);
        if (!numTokensOf(cards)) cards.forEach(({ node }) => node.remove());
      }
    } finally {
      this.#running.delete(controller);
      for (const card of cards) card.end(reason);
      this.onChange(this.isRunning);
    }
    if (!numTokensOf(cards)) return;
    const took = `${formatCount(numTokensOf(cards), "token")} in ${formatDuration(performance.now() - startMs)}`;
    announce(cards.length > 1 ? `${cards.length} answers, ${took}` : `${cards[0].title}, ${took}: ${cards[0].text}`);
    this.onDone({ request, promptText: cards[0].origin.promptText, texts: cards.map(({ strip }) => strip.text) });
  }
}

function numTokensOf(cards) {
  return cards.reduce((sum, card) => sum + card.numTokens, 0);
}
