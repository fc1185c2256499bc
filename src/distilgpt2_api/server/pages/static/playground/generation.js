// Requests for answers: starting, stopping and branching.

import { postJson, postStream } from "./api.js";
import { announce, formatCount, formatDuration } from "./dom.js";

/**
 * Writes a stream into cards until it ends, and ends them. `read` makes a completion's choice of a choice. Returns the
 * error, if there was one; null if the user stopped it.
 */
export async function stream(path, request, cards, signal, read = (choice) => choice) {
  const startMs = performance.now();
  let reason = "interrupted";
  let failure = null;
  announce("Generating");
  try {
    for await (const event of postStream(path, request, signal)) {
      for (const choice of event.choices) cards[choice.index].accept(read(choice));
      if (event.timings) for (const card of cards) card.showTimings(event.timings);
    }
  } catch (error) {
    if (error.name === "AbortError") reason = "stopped";
    else failure = error;
  }
  for (const card of cards) card.end(reason);
  if (numTokensOf(cards)) {
    const took = `${formatCount(numTokensOf(cards), "token")} in ${formatDuration(performance.now() - startMs)}`;
    announce(cards.length > 1 ? `${cards.length} answers, ${took}` : `${cards[0].title}, ${took}: ${cards[0].text}`);
  }
  return failure;
}

/** Mutable: the running requests. `readService()`, `onChange(isRunning)`, `onError(error, retry)`, `onDone(run)`. */
export class Generation {
  #running = new Set();
  #numBranches = 0;

  constructor(board, callbacks) {
    Object.assign(this, { board }, callbacks);
  }

  get isRunning() {
    return this.#running.size > 0;
  }

  stop() {
    const { isRunning } = this;
    for (const controller of this.#running) controller.abort();
    return isRunning;
  }

  /** Generates a prompt's answers, above the earlier ones. */
  async start(request) {
    const count = request.n ?? 1;
    const cards = Array.from({ length: count }, (_, index) =>
      this.board.newCard(count > 1 ? `Answer ${index + 1}` : "Answer", request, { promptText: request.prompt }));
    const run = this.board.begin({ promptText: request.prompt, cards });
    await this.#run(request, cards, run, () => this.start(request));
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
    this.#numBranches += 1;
    const kept = card.strip.tokens.slice(0, index);
    const origin = { promptText: card.origin.promptText, promptIds: card.promptIds, kept, chosen };
    const next = this.board.newCard(`${chosen ? "Branch" : "Continuation"} ${this.#numBranches}`, request, origin);
    const run = this.board.addBranch(card, next);
    next.node.scrollIntoView({ block: "nearest" });
    await this.#run(request, [next], run, retry);
  }

  /** Log-probabilities list alternatives by text. Requests the same position as a prompt token, which is listed by id. */
  async #withId(token, alternative, before) {
    const { model } = this.readService();
    const request = { model, prompt: [...before, token.id], max_tokens: 0, echo: true, prompt_logprobs: token.top.length };
    const { choices: [choice] } = await postJson("v1/completions", request);
    const listed = Object.entries(choice.prompt_logprobs.at(-1))
      .filter(([, { decoded_token: text }]) => text === alternative.text)
      .sort(([, a], [, b]) => b.logprob - a.logprob);
    if (!listed.length) throw new Error("The service now lists other tokens at this position. Generate again.");
    return { ...alternative, id: Number(listed[0][0]), top: token.top, numAsked: token.numAsked };
  }

  async #run(request, cards, run, retry) {
    const controller = new AbortController();
    this.#running.add(controller);
    this.onChange(true);
    const error = await stream("v1/completions", request, cards, controller.signal);
    this.#running.delete(controller);
    const hasText = !error || numTokensOf(cards) > 0;
    this.board.end(cards, hasText);
    this.onChange(this.isRunning);
    if (error) this.onError(error, retry);
    if (hasText) this.onDone(run);
  }
}

function numTokensOf(cards) {
  return cards.reduce((sum, card) => sum + card.numTokens, 0);
}
