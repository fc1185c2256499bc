// The page: connects its parts.

import { alternatives } from "./alternatives.js";
import { ApiError, OfflineError, getJson, setKeyReader } from "./api.js";
import { Batches } from "./batches.js";
import { Board } from "./board.js";
import { Chat } from "./chat.js";
import { copyText } from "./clipboard.js";
import { showCode } from "./code.js";
import { announce, find, keepFocus } from "./dom.js";
import { exportAnswers } from "./export.js";
import { Generation } from "./generation.js";
import { History } from "./history.js";
import { askForKey, forgetKey, readKey } from "./keys.js";
import { Live } from "./live.js";
import { clearNotice, isOfflineShown, showError } from "./notices.js";
import { Score } from "./score.js";
import { Settings } from "./settings.js";
import { linkTo, takeLink } from "./share.js";
import { keep, recall } from "./storage.js";
import { Tabs } from "./tabs.js";
import { switchTheme } from "./theme-switch.js";

const STATES = { loading: "loading the model", draining: "shutting down" };
/** The panels beside each view: only those with an effect on it. */
const PANELS = { write: ["settings", "history", "service"], chat: ["settings", "service"], score: ["service"], batch: ["service"] };
const TEXTS = { prompt: "prompt", messages: "chat-input", input: "score-text" };
const MAX_ANSWERS = 8;
const isNarrow = matchMedia("(max-width: 62rem)");
const service = { model: undefined, maxTokens: undefined };
const prompt = find("prompt");
const form = recall("form");

setKeyReader(readKey);
const settings = new Settings(find("settings"), find("presets"), { onChange: saveForm, onReveal: revealSettings, onExample: showExample });
const board = new Board({
  onBranch: (card, index, alternative) => generation.branch(card, index, alternative),
  onCode: (card) => show(card.request),
  onReuse: (card) => {
    takeOver(card.origin.promptText, card.request, true);
    announce("Prompt, settings and seed are as in this answer. The seed is locked.");
    prompt.focus();
  },
});
const generation = new Generation(board, {
  readService: () => service, onChange: showRunning, onError: handleError, onDone: (run) => history.put(run),
});
const history = new History((entry) => {
  takeOver(entry.promptText, entry.answers[0].request, false);
  board.show(entry);
  announce("Earlier answers, with their prompt and settings");
});
const score = new Score(find("score-result"), {
  readService: () => service,
  onBranch: (source, index, alternative) => {
    const fields = readFields({});
    if (!fields) return;
    views.select("write");
    generation.branch({ ...source, request: asStream(fields) }, index, alternative);
  },
});
const chat = new Chat({ readFields: () => readFields({}), onError: handleError, onCode: show, onProblem: (problem) => showProblem("chat-input", problem) });
const batches = new Batches(handleError);
const live = new Live((state, last) => {
  document.documentElement.dataset.state = state;
  find("state").textContent = STATES[state] ?? state;
  if (state === "offline" && last !== null) showError(new OfflineError("The service does not answer."), null);
  if (state !== "offline" && isOfflineShown()) clearNotice();
  if (state === "ready") describeService();
});
const panels = new Tabs(find("panels"), (name) => {
  live.areFiguresShown = name === "service";
  live.refresh();
});
const views = new Tabs(find("views"), (view) => {
  alternatives.close();
  settings.showFor(view);
  panels.show((name) => PANELS[view].includes(name));
  panels.select(PANELS[view][0]);
  batches.show(view === "batch");
});

async function describeService() {
  try {
    const { model, precision, version, has_chat: hasChat, has_batches: hasBatches } = await getJson("version");
    service.model = model;
    live.unlock();
    find("model").textContent = model;
    const { data: cards } = await getJson("v1/models");
    const names = cards.slice(1).map(({ id }) => id).join(", ");
    find("model-facts").textContent = `${precision} · version ${version}${names && ` · also ${names}`}`;
    document.title = `${model} · playground`;
    const { max_total_tokens: maxTokens, max_best_of: maxN } = await getJson("info");
    service.maxTokens = maxTokens;
    settings.offerDefaults(cards[0].generation_config, !form);
    settings.limit({ n: Math.min(MAX_ANSWERS, maxN), max_tokens: maxTokens - 1, min_tokens: maxTokens - 1 });
    views.show((name) => ({ chat: hasChat, batch: hasBatches })[name] ?? true);
    openLink();
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
    if (retry && retry !== describeService) retry();
    return;
  }
  const text = TEXTS[error.param?.split(".")[0]];
  if (text) showProblem(text, error.message);
  else if (!settings.showProblem(error.param, error.message)) showError(error, retry);
  if (error instanceof OfflineError) live.refresh();
}

/** Shows what is wrong with a text, below it; without a message, that nothing is. */
function showProblem(id, message) {
  const field = find(id);
  find(field.getAttribute("aria-describedby")).textContent = message;
  field.setAttribute("aria-invalid", String(Boolean(message)));
  if (message) field.focus();
}

/** The settings; on a narrow screen in their sheet. */
function revealSettings() {
  panels.select("settings");
  if (isNarrow.matches) find("side").showPopover();
}

/** The model, the texts of a request and the settings as its fields; null if a setting is invalid. `isRun`: to be sent. */
function readFields(texts, isRun = true) {
  const fields = settings.readFields(isRun);
  return fields && { model: service.model, ...texts, ...fields };
}

/** Streamed, and with token ids, which a branch's prompt needs. */
const asStream = (fields) => ({ ...fields, stream: true, return_token_ids: true, timings: true });

/** The request for the prompt; null if it can't be sent, which the page then shows. */
function readRequest(isRun = true) {
  showProblem("prompt", prompt.value ? "" : "Write a prompt first.");
  const fields = prompt.value && readFields({ prompt: prompt.value }, isRun);
  return fields && asStream(fields);
}

function generate() {
  if (generation.isRunning) return;
  alternatives.close();
  clearNotice();
  const request = readRequest();
  if (!request) return;
  saveForm();
  generation.start(request);
}

/** Generates an example's text without the preset, then with it. */
async function showExample({ text, without }) {
  if (generation.isRunning) return;
  prompt.value = text;
  const request = readRequest();
  if (!request) return;
  await generation.start({ ...request, ...without });
  await generation.start(request);
}

function show(request) {
  if (request) showCode(request, readKey() !== null);
}

/** Puts the prompt and the settings of an answer back into the form. */
function takeOver(text, request, isSeedLocked) {
  if (text) prompt.value = text;
  settings.applyRequest(request, isSeedLocked);
  showProblem("prompt", "");
  saveForm();
}

function showRunning(isRunning) {
  keepFocus(() => {
    find("generate").hidden = isRunning;
    find("stop").hidden = !isRunning;
  }, () => find(isRunning ? "stop" : "generate"));
}

function saveForm() {
  keep("form", { prompt: prompt.value, values: settings.values });
}

async function scoreText() {
  const text = find("score-text").value;
  alternatives.close();
  clearNotice();
  showProblem("score-text", text ? "" : "Write a text first.");
  if (!text) return;
  const button = find("score-run");
  const isFocused = document.activeElement === button;
  button.disabled = true;
  await score.show(text).catch((error) => handleError(error, scoreText));
  button.disabled = false;
  if (isFocused && document.activeElement === document.body) button.focus({ preventScroll: true });
}

/** The texts of the view, for a link. */
function textsOfView() {
  const view = views.selected;
  if (view === "chat") return { view, prompt: find("chat-input").value || chat.lastSaid, system: find("chat-system").value };
  return view === "score" ? { view, prompt: find("score-text").value } : { prompt: prompt.value };
}

/** Takes over what a link to this page says. It starts nothing. */
function openLink() {
  const link = takeLink();
  if (!link) return;
  const { view, prompt: text, system } = link.texts;
  settings.apply(link.values);
  if (text !== null) find({ chat: "chat-input", score: "score-text" }[view] ?? "prompt").value = text;
  if (system !== null) find("chat-system").value = system;
  views.select(view ?? "write");
  saveForm();
  announce("Prompt and settings are from the link");
}

function onKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    ({ write: generate, chat: () => chat.send(), score: scoreText })[views.selected]?.();
  }
  const isOpen = document.querySelector("dialog[open], :popover-open");
  if (event.key === "Escape" && !isOpen && !alternatives.close() && (generation.stop() || chat.stop())) event.preventDefault();
}

for (const [id, act] of Object.entries({
  generate, stop: () => generation.stop(), "score-run": scoreText, theme: switchTheme, "show-code": () => show(readRequest(false)),
  share: () => copyText(linkTo(textsOfView(), settings.values), find("share")),
  "code-copy": () => copyText(find("code-text").textContent, find("code-copy")),
  "forget-key": () => {
    forgetKey();
    keepFocus(() => find("forget-key").hidden = true, () => find("share"));
    announce("Key forgotten");
  },
})) find(id).addEventListener("click", act);
for (const button of document.querySelectorAll("[data-export]")) {
  const [scope, format] = button.dataset.export.split(" ");
  button.addEventListener("click", () => exportAnswers(scope === "pinned" ? board.pinned : board.cards, format));
}
for (const close of document.querySelectorAll("dialog .close")) {
  close.addEventListener("click", () => close.closest("dialog").close());
}
for (const id of Object.values(TEXTS)) find(id).addEventListener("input", () => showProblem(id, ""));
find("colours").addEventListener("change", ({ target }) => document.body.classList.toggle("no-colours", !target.checked));
prompt.addEventListener("input", saveForm);
document.addEventListener("keydown", onKey);
addEventListener("hashchange", openLink);
isNarrow.addEventListener("change", () => find("side").hidePopover());

if (typeof form?.prompt === "string") prompt.value = form.prompt;
if (form?.values) settings.apply(form.values);
find("forget-key").hidden = readKey() === null;
views.select("write");
