// What went wrong, in the service's words, and when to try again.

import { ApiError, OfflineError } from "./api.js";
import { find, make } from "./dom.js";

const TITLES = {
  400: "The request can't be done as it is", 401: "A key is needed", 404: "Not here", 408: "Too slow",
  413: "Too long", 429: "Too much at once", 503: "Not now", 504: "It took too long",
};

let countdown = 0;

export function clearNotice() {
  clearInterval(countdown);
  find("notice").replaceChildren();
}

/** `onRetry` is offered where the same request may work later, once the service's own wait is over. */
export function showError(error, onRetry) {
  clearNotice();
  const isOffline = error instanceof OfflineError;
  const title = isOffline ? "The service is gone" : (TITLES[error.status] ?? "That went wrong");
  const detail = isOffline ? `${error.message} Is it still running? This page looks again every few seconds.` : error.message;
  const facts = error instanceof ApiError
    ? [`HTTP ${error.status}`, error.type, error.code, error.param && `parameter ${error.param}`].filter(Boolean).join(" · ")
    : "";
  const box = make("div", { class: isOffline ? "notice offline" : "notice" },
    make("strong", { text: title }), make("p", { text: detail }), ...(facts ? [make("p", { class: "help", text: facts })] : []));
  const mayPass = isOffline || error.status >= 429;
  if (onRetry && mayPass) box.append(retryButton(onRetry, error.retryAfterS ?? 0));
  box.append(make("button", { type: "button", class: "quiet remove", text: "×", "aria-label": "Dismiss", onclick: clearNotice }));
  find("notice").append(box);
}

export const isOfflineShown = () => Boolean(find("notice").querySelector(".offline"));

function retryButton(onRetry, waitS) {
  const button = make("button", { type: "button", class: "retry", onclick: () => {
    clearNotice();
    onRetry();
  } });
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
