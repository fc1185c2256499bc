// The service's state and figures. Figures are read from /metrics, only while the page shows them.

import { OfflineError, getJson, getText } from "./api.js";
import { find } from "./dom.js";

const INTERVAL_MS = 1500;

/** Samples by name, summed over labels. The engine's state is the label with the value 1. */
function readMetrics(text) {
  const sums = new Map();
  for (const [, name, labels, value] of text.matchAll(/^(distilgpt2_[a-z_]+)(?:\{(.*)\})? (\S+)$/gm)) {
    if (name === "distilgpt2_engine_state" && Number(value) > 0) sums.set("state", /state="([a-z]+)"/.exec(labels)?.[1]);
    sums.set(name, (sums.get(name) ?? 0) + Number(value));
  }
  return sums;
}

/** Mutable. `onState(state, last)` is called on each change: `ready`, `loading`, …, or `offline`; null at first. */
export class Live {
  areFiguresShown = false;
  #timer = 0;
  /** Until `unlock`: without a key, requests for metrics would count as failed logins. */
  #isLocked = true;
  #state = null;
  #last = null;

  constructor(onState) {
    this.onState = onState;
    document.addEventListener("visibilitychange", () => this.refresh());
    this.refresh();
  }

  /** Updates now and from now on. */
  refresh() {
    clearTimeout(this.#timer);
    if (!document.hidden) this.#look();
  }

  /** The service accepts our requests, so metrics may be read. */
  unlock() {
    this.#isLocked = false;
  }

  async #look() {
    let state;
    try {
      state = this.#isLocked || !this.areFiguresShown ? await this.#readState() : await this.#readMetrics();
    } catch (error) {
      state = error instanceof OfflineError ? "offline" : await this.#readState();
      this.#isLocked ||= error.status === 401 || error.status === 403; // Metrics may require another key.
      for (const id of ["live-running", "live-waiting", "live-kv", "live-rate"]) find(id).textContent = "–";
    }
    if (state !== this.#state) {
      const last = this.#state;
      this.#state = state;
      this.onState(state, last);
    }
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.#look(), INTERVAL_MS);
  }

  async #readState() {
    this.#last = null;
    try {
      return (await getJson("readyz")).status;
    } catch (error) {
      return error instanceof OfflineError ? "offline" : (error.state ?? "not ready");
    }
  }

  async #readMetrics() {
    const now = performance.now();
    const metrics = readMetrics(await getText("metrics"));
    const valueOf = (name) => metrics.get(`distilgpt2_${name}`) ?? 0;
    const share = valueOf("kv_cache_usage_ratio");
    find("live-running").textContent = valueOf("running_sequences");
    find("live-waiting").textContent = valueOf("waiting_sequences");
    find("live-kv").textContent = `${(100 * share).toFixed(share && share < 0.1 ? 1 : 0)} %`;
    find("live-kv-bar").style.setProperty("--share", share);
    const computed = valueOf("computed_tokens_total");
    const rate = this.#last && ((computed - this.#last.computed) * 1000) / (now - this.#last.now);
    if (rate !== null) find("live-rate").textContent = Math.max(0, rate).toFixed(0);
    this.#last = { computed, now };
    return metrics.get("state") ?? "ready";
  }
}
