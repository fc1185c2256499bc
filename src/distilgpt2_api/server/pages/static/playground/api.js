// Requests to the service, below a proxy's path prefix. Errors become objects; every request carries the key.

import { eventsOf } from "./sse.js";

export const ROOT = new URL("../../", import.meta.url);

/** An error answer of the service. `state`: the engine's, if a probe answered. */
export class ApiError extends Error {
  constructor(status, { message, type = null, param = null, code = null, state = null }, retryAfterS = null) {
    super(message);
    Object.assign(this, { status, type, param, code, state, retryAfterS });
  }
}

/** The service does not answer, or the connection broke. */
export class OfflineError extends Error {}

let readKey = () => null;

export function setKeyReader(reader) {
  readKey = reader;
}

export async function getJson(path) {
  return (await send(path)).json();
}

export async function getText(path) {
  return (await send(path, { accept: "text/plain" })).text();
}

export async function getBlob(path) {
  return (await send(path, { accept: "*/*" })).blob();
}

/** Without a body: an empty POST. */
export async function postJson(path, body) {
  return (await send(path, { body, method: "POST" })).json();
}

/** Uploads a file for a batch. `onProgress(share)`: `fetch` can't tell, so this is an XMLHttpRequest. */
export function uploadFile(file, onProgress) {
  const form = new FormData();
  form.append("purpose", "batch");
  form.append("file", file);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", new URL("v1/files", ROOT));
    const key = readKey();
    if (key) request.setRequestHeader("authorization", `Bearer ${key}`);
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 1);
    request.onerror = () => reject(new OfflineError("The upload was interrupted."));
    request.onload = async () => {
      const answer = new Response(request.response, { status: request.status });
      if (answer.ok) resolve(await answer.json());
      else reject(await errorOf(answer));
    };
    request.send(form);
  });
}

/** The events of a stream as objects. Leaving the loop, or the signal, hangs up, which cancels the request. */
export async function* postStream(path, body, signal) {
  const answer = await send(path, { body, signal, accept: "text/event-stream" });
  try {
    for await (const data of eventsOf(answer.body)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(answer.status, event.error);
      yield event;
    }
  } catch (error) {
    throw error instanceof TypeError ? brokenOff() : error;
  }
  throw brokenOff();
}

const brokenOff = () => new OfflineError("The connection was lost in the middle of the answer.");

async function send(path, { body, method, signal, accept = "application/json" } = {}) {
  const headers = { accept };
  const key = readKey();
  if (key) headers.authorization = `Bearer ${key}`;
  const options = { method, headers, signal, cache: "no-store", redirect: "error" };
  if (body !== undefined) {
    headers["content-type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let answer;
  try {
    answer = await fetch(new URL(path, ROOT), options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new OfflineError("The service does not answer.");
  }
  if (!answer.ok) throw await errorOf(answer);
  return answer;
}

async function errorOf(answer) {
  const retryAfterS = answer.headers.get("retry-after-ms") / 1000 || Number(answer.headers.get("retry-after")) || null;
  let error = { message: `The service answered ${answer.status} ${answer.statusText}`.trim() };
  try {
    const body = await answer.json();
    error = typeof body.error === "string" ? { message: body.error } : (body.error ?? { ...error, state: body.status });
  } catch {
    // Not the service's: a proxy's page.
  }
  return new ApiError(answer.status, error, retryAfterS);
}
