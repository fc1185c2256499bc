// Error notices: the service's message, and when to retry.

import { ApiError, OfflineError } from "./api.js";
import { find, keepFocus, make, makeButton } from "./dom.js";

const TITLES = {
  400: "Invalid request", 401: "API key required", 413: "Request too large", 429: "Too many requests", 503: "Service unavailable", 504: "Deadline exceeded",
};

let countdown = 0;

export function clearNotice() {
  clearInterval(countdown);
  find("notice").replaceChildren();
}

/** Offers `onRetry` if the same request may work later, after the time that the service names. */
export function showError(error, onRetry) {
  clearNotice();
  const isOffline = error instanceof OfflineError;
  const title = isOffline ? "The service is offline" : (TITLES[error.status] ?? "Error");
  const detail = isOffline ? `${error.message} Is it still running? This page checks again every few seconds.` : error.message;
  const facts = error instanceof ApiError
    ? [`HTTP ${error.status}`, error.type, error.code, error.param && `parameter ${error.param}`].filter(Boolean).join(" · ")
    : "";
  const box = make("div", { class: isOffline ? "notice offline" : "notice" },
    make("strong", { text: title }), make("p", { text: detail }), ...(facts ? [make("p", { class: "help", text: facts })] : []));
  const isRetryable = isOffline || error.status >= 429;
  if (onRetry && isRetryable) box.append(retryButton(onRetry, error.retryAfterS ?? 0));
  const dismiss = () => keepFocus(clearNotice, () => document.querySelector("#views [tabindex='0']"));
  box.append(makeButton("×", dismiss, "Dismiss", { class: "quiet remove" }));
  find("notice").append(box);
}

export const isOfflineShown = () => Boolean(find("notice").querySelector(".offline"));

function retryButton(onRetry, waitS) {
  const button = makeButton("", () => {
    clearNotice();
    onRetry();
  }, null, { class: "quiet retry" });
  const endMs = performance.now() + waitS * 1000;
  const tick = () => {
    const leftS = Math.ceil((endMs - performance.now()) / 1000);
    button.disabled = leftS > 0;
    button.textContent = leftS > 0 ? `Try again in ${leftS} s` : "Try again";
    if (leftS <= 0) clearInterval(countdown);
  };
  countdown = setInterval(tick, 250);
  tick();
  return button;
}
