// Files of requests: uploading, progress and answers, where the service keeps batches.

import { getBlob, getJson, postJson, uploadFile } from "./api.js";
import { download } from "./clipboard.js";
import { announce, find, formatCount, make, makeButton } from "./dom.js";

const INTERVAL_MS = 1500;
const MAX_ERRORS = 5;
/** Enough of a file to have its first line. */
const HEAD_BYTES = 1 << 20;
const URLS = ["/v1/completions", "/v1/chat/completions", "/v1/score"];
const ENDED = new Set(["completed", "failed", "expired", "cancelled"]);

/** Mutable: the caller's newest batches, read again while one of them runs and the page shows them. */
export class Batches {
  #timer = 0;
  #isShown = false;

  constructor(onError) {
    this.onError = onError;
    find("batch-file").addEventListener("change", ({ target }) => this.#start(target.files[0]));
    document.addEventListener("visibilitychange", () => this.show(this.#isShown));
  }

  /** Starts or stops watching the batches. */
  show(isShown) {
    this.#isShown = isShown;
    clearTimeout(this.#timer);
    if (isShown && !document.hidden) this.#watch();
  }

  async #watch() {
    try {
      const { data: batches } = await getJson("v1/batches?limit=20");
      const { data: files } = await getJson("v1/files?purpose=batch&limit=100");
      const names = new Map(files.map(({ id, filename }) => [id, filename]));
      this.#draw(batches, names);
      clearTimeout(this.#timer);
      const isOpen = batches.some(({ status }) => !ENDED.has(status));
      if (isOpen && this.#isShown && !document.hidden) this.#timer = setTimeout(() => this.#watch(), INTERVAL_MS);
    } catch (error) {
      this.onError(error, () => this.#watch());
    }
  }

  async #start(file) {
    find("batch-file").value = "";
    if (!file) return;
    const [endpoint, problem] = await endpointOf(file);
    find("batch-problem").textContent = problem;
    if (!endpoint) return;
    find("batch-upload").hidden = false;
    try {
      const { id } = await uploadFile(file, (share) => {
        find("batch-upload-text").textContent = `Uploading ${file.name}: ${Math.floor(100 * share)} %`;
        find("batch-upload-bar").value = share;
      });
      await postJson("v1/batches", { input_file_id: id, endpoint, completion_window: "24h" });
      announce(`${file.name} is uploaded, and its batch has begun`);
    } catch (error) {
      this.onError(error, () => this.#start(file));
    }
    find("batch-upload").hidden = true;
    await this.#watch();
  }

  #draw(batches, names) {
    const list = find("batch-list");
    const focused = list.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
    list.replaceChildren(...batches.map((batch) => this.#item(batch, names.get(batch.input_file_id) ?? "A deleted file")));
    if (focused) (list.querySelector(`[aria-label="${CSS.escape(focused)}"]`) ?? find("batch-file")).focus();
    find("batch-empty").hidden = batches.length > 0;
  }

  #item(batch, name) {
    const { id, status, request_counts: { total, completed, failed }, errors, endpoint } = batch;
    const button = (text, act) => makeButton(text, () => act().catch((error) => this.onError(error, null)), `${text} of ${name}`);
    const save = (text, fileId) => fileId && button(text, async () =>
      download(await getBlob(`v1/files/${fileId}/content`), `${name.replace(/\.[^.]*$/, "")}-${text.toLowerCase()}.jsonl`));
    const cancel = !ENDED.has(status) && button("Cancel", async () => {
      await postJson(`v1/batches/${id}/cancel`);
      await this.#watch();
    });
    const buttons = [save("Answers", batch.output_file_id), save("Errors", batch.error_file_id), cancel].filter(Boolean);
    const facts = [total && `${completed + failed} of ${formatCount(total, "line")}`, failed && `${failed} failed`, endpoint.slice("/v1/".length)];
    const problems = (errors?.data ?? []).slice(0, MAX_ERRORS).map(({ line, message }) =>
      make("li", { text: line === null ? message : `Line ${line}: ${message}` }));
    return make("li", { class: `card batch ${status}` },
      make("div", { class: "head" }, make("h3", { text: name }), make("span", { class: "state", text: status.replace("_", " ") })),
      make("progress", { max: Math.max(1, total), value: completed + failed, "aria-label": `Lines done of ${name}` }),
      make("ul", { class: "problems" }, ...problems),
      make("div", { class: "head" }, make("p", { class: "facts", text: facts.filter(Boolean).join(" · ") }), make("div", { class: "actions" }, ...buttons)));
  }
}

/** The route of a file's lines, from its first one; or null, and what is wrong with it. */
async function endpointOf(file) {
  const head = await file.slice(0, HEAD_BYTES).text();
  let url;
  try {
    ({ url } = JSON.parse(head.trimStart().split("\n")[0]));
  } catch {
    return [null, `${file.name} is not JSON Lines: its first line is not a JSON object.`];
  }
  return URLS.includes(url) ? [url, ""] : [null, `The first line of ${file.name} needs a url: ${URLS.join(", ")}.`];
}
