// The service's figures, read from /metrics while the page is visible.

import { OfflineError, getJson, getText } from "./api.js";
import { find } from "./dom.js";

const INTERVAL_MS = 2000;
const BUSY_INTERVAL_MS = 700;
const NUM_POINTS = 40;

/** Samples by name, summed over labels. The engine's state is the label with the value 1. */
function readMetrics(text) {
  const sums = new Map();
  for (const line of text.split("\n")) {
    const match = /^(distilgpt2_[a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const [, name, labels, value] = match;
    if (name === "distilgpt2_engine_state" && Number(value) > 0) sums.set("state", /state="([a-z]+)"/.exec(labels)?.[1]);
    sums.set(name, (sums.get(name) ?? 0) + Number(value));
  }
  return sums;
}

/** Mutable. `onState(state, last)` is called on each change: `ready`, `loading`, …, or `offline`; null at first. */
export class Live {
  isBusy = false;
  #timer = 0;
  /** Until `unlock`: without a key, requests for metrics would count as failed logins. */
  #isLocked = true;
  #state = null;
  #last = null;
  #points = [];

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
    if (!this.#isLocked) return;
    this.#isLocked = false;
    this.refresh();
  }

  async #look() {
    let state;
    try {
      state = this.#isLocked ? await this.#readState() : await this.#readMetrics();
    } catch (error) {
      state = error instanceof OfflineError ? "offline" : await this.#readState();
      this.#isLocked ||= error.status === 401 || error.status === 403; // Metrics may require another key.
      this.#clear();
    }
    if (state !== this.#state) {
      const last = this.#state;
      this.#state = state;
      this.onState(state, last);
    }
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.#look(), this.isBusy ? BUSY_INTERVAL_MS : INTERVAL_MS);
  }

  async #readState() {
    try {
      return (await getJson("readyz")).status;
    } catch (error) {
      return error instanceof OfflineError ? "offline" : "not ready";
    }
  }

  async #readMetrics() {
    const now = performance.now();
    const metrics = readMetrics(await getText("metrics"));
    const show = (id, name, write) => {
      find(id).textContent = metrics.has(name) ? write(metrics.get(name)) : "–";
    };
    show("live-running", "distilgpt2_running_sequences", String);
    show("live-waiting", "distilgpt2_waiting_sequences", String);
    show("live-kv", "distilgpt2_kv_cache_usage_ratio", (ratio) => `${(100 * ratio).toFixed(ratio && ratio < 0.1 ? 1 : 0)} %`);
    find("live-kv-bar").style.setProperty("--share", metrics.get("distilgpt2_kv_cache_usage_ratio") ?? 0);
    const computed = metrics.get("distilgpt2_computed_tokens_total") ?? 0;
    if (this.#last && computed >= this.#last.computed) {
      this.#draw(Math.max(0, ((computed - this.#last.computed) * 1000) / (now - this.#last.now)));
    }
    this.#last = { computed, now };
    return metrics.get("state") ?? "ready";
  }

  #clear() {
    for (const id of ["live-running", "live-waiting", "live-kv", "live-rate"]) find(id).textContent = "–";
  }

  #draw(rate) {
    find("live-rate").textContent = rate.toFixed(0);
    this.#points = [...this.#points, rate].slice(-NUM_POINTS);
    const max = Math.max(10, ...this.#points);
    const xOf = (index) => 100 * (1 - (this.#points.length - 1 - index) / (NUM_POINTS - 1));
    const line = this.#points.map((value, index) => `${xOf(index).toFixed(1)},${(27 - (24 * value) / max).toFixed(1)}`);
    find("live-line").setAttribute("points", line.join(" "));
    find("live-area").setAttribute("points", `${xOf(0).toFixed(1)},28 ${line.join(" ")} 100,28`);
  }
}
