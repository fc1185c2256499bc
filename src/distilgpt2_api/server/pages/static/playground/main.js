// The page: connects its parts.

import { alternatives } from "./alternatives.js";
import { ApiError, OfflineError, getJson, setKeyReader } from "./api.js";
import { copyText, showCode } from "./code.js";
import { announce, find, formatDuration } from "./dom.js";
import { Generation } from "./generation.js";
import { History } from "./history.js";
import { askForKey, forgetKey, readKey } from "./keys.js";
import { Live } from "./live.js";
import { clearNotice, isOfflineShown, showError } from "./notices.js";
import { Score } from "./score.js";
import { Settings } from "./settings.js";
import { keep, recall } from "./storage.js";

const STATES = { ready: "ready", loading: "loading the model", draining: "shutting down", failed: "failed", offline: "offline" };
const service = { model: null, maxTokens: null };

setKeyReader(readKey);
const settings = new Settings(find("settings"), find("presets"), saveForm);
const prompt = find("prompt");

const generation = new Generation(find("answers"), {
  readService: () => service,
  onChange: showRunning,
  onSpeed: showSpeed,
  onError: handleError,
  onCode: (request) => showCode(request, readKey() !== null),
  onDone: ({ promptText, texts, request }) => {
    if (typeof request.prompt === "string") history.add({ promptText, texts, values: { ...settings.values, seed: request.seed } });
  },
});
const history = new History((entry) => {
  prompt.value = entry.promptText;
  settings.apply({ ...entry.values, isSeedLocked: true });
  selectTab("write");
  generation.showPlain(entry.promptText, entry.texts);
  announce("An earlier answer, with its settings and seed");
  prompt.focus();
});
const score = new Score(find("score-result"), {
  readService: () => service,
  onBranch: (source, index, alternative) => {
    selectTab("write");
    withRequest("", (request) => generation.branch({ ...source, request }, index, alternative));
  },
});
const live = new Live((state, last) => {
  document.documentElement.dataset.state = state;
  find("state").textContent = STATES[state] ?? state;
  if (state === "offline" && last !== null) showError(new OfflineError("The service does not answer."), null);
  if (state !== "offline" && isOfflineShown()) clearNotice();
  if (state === "ready") describeService();
});

async function describeService() {
  try {
    const { model, precision, version } = await getJson("version");
    service.model = model;
    live.unlock();
    find("model").textContent = model;
    find("model-facts").textContent = `${precision} · version ${version}`;
    document.title = `${model} · playground`;
    const { max_total_tokens: maxTokens, max_best_of: maxN } = await getJson("info");
    service.maxTokens = maxTokens;
    settings.limit({ n: maxN, max_tokens: maxTokens - 1, min_tokens: maxTokens - 1 });
  } catch (error) {
    if (error.status === 401) handleError(error, describeService);
  }
}

async function handleError(error, retry) {
  if (error instanceof ApiError && error.status === 401) {
    if (!(await askForKey())) {
      showError(error, null);
      return;
    }
    find("forget-key").hidden = false;
    clearNotice();
    await describeService();
    if (retry !== describeService) retry();
    return;
  }
  settings.markInvalid(error.param, error.message);
  showError(error, retry);
  if (error instanceof OfflineError) live.refresh();
}

function generate() {
  if (generation.isRunning) return;
  alternatives.close();
  clearNotice();
  settings.clearInvalid();
  withRequest(prompt.value, (request) => {
    saveForm();
    generation.start(request);
  });
}

/**
 * Passes a text's request with the current settings to `use`: streamed, and with token ids, which a branch's prompt
 * needs. If a setting can't be sent, shows the error instead.
 */
function withRequest(text, use) {
  let fields;
  try {
    fields = settings.readFields();
  } catch (error) {
    handleError(error, null);
    return;
  }
  const { model } = service;
  use({ ...(model && { model }), prompt: text, logprobs: 0, ...fields, stream: true, return_token_ids: true });
}

function showRunning(isRunning) {
  find("generate").hidden = isRunning;
  find("stop").hidden = !isRunning;
  if (live.isBusy !== isRunning) {
    live.isBusy = isRunning;
    live.refresh();
  }
}

function showSpeed(rate, firstMs) {
  find("speed").textContent = rate.toFixed(0);
  find("first-token").textContent = formatDuration(firstMs);
}

function saveForm() {
  keep("form", { prompt: prompt.value, values: settings.values });
}

async function scoreText() {
  const text = find("score-text").value;
  const button = find("score-run");
  alternatives.close();
  clearNotice();
  button.disabled = true;
  try {
    await score.show(text);
  } catch (error) {
    handleError(error, scoreText);
  } finally {
    button.disabled = false;
  }
}

function selectTab(name) {
  alternatives.close();
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const isChosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    find(tab.getAttribute("aria-controls")).hidden = !isChosen;
  }
}

function moveTab(event) {
  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
  const other = [...document.querySelectorAll("[role=tab]")].find((tab) => tab !== event.target);
  selectTab(other.id.slice(4));
  other.focus();
}

function switchTheme() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const current = document.documentElement.dataset.theme ?? (isDark ? "dark" : "light");
  const theme = current === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("distilgpt2-playground:theme", theme);
  } catch {
    // Storage is blocked: the choice applies to this page only.
  }
  announce(`${theme} colours`);
}

function onKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (find("score").hidden) generate();
    else scoreText();
  }
  if (event.key === "Escape" && !document.querySelector("dialog[open]") && !alternatives.close() && generation.stop()) {
    event.preventDefault();
  }
}

function restore() {
  const form = recall("form");
  if (typeof form?.prompt === "string") prompt.value = form.prompt;
  if (form?.values) settings.apply(form.values);
  const wide = matchMedia("(min-width: 62rem)");
  const fold = () => {
    find("settings-fold").open = wide.matches;
  };
  wide.addEventListener("change", fold);
  fold();
  find("forget-key").hidden = readKey() === null;
}

for (const [id, act] of Object.entries({
  generate, stop: () => generation.stop(), "score-run": scoreText, theme: switchTheme,
  "forget-key": () => {
    forgetKey();
    find("forget-key").hidden = true;
    announce("Key forgotten");
  },
  "show-code": () => {
    withRequest(prompt.value, (request) => showCode(request, readKey() !== null));
  },
})) find(id).addEventListener("click", act);
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => selectTab(tab.id.slice(4)));
  tab.addEventListener("keydown", moveTab);
}
for (const close of document.querySelectorAll("dialog .close")) {
  close.addEventListener("click", () => close.closest("dialog").close());
}
find("colours").addEventListener("change", (event) => {
  document.body.classList.toggle("no-colours", !event.target.checked);
});
find("code-copy").addEventListener("click", (event) => copyText(find("code-text").textContent, event.currentTarget));
prompt.addEventListener("input", saveForm);
document.addEventListener("keydown", onKey);
restore();
