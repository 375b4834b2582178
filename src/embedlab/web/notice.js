// One bar for what stands in the way of everything: the server is gone, wants a key, or asks to wait.
import { ApiError, address, key } from "./api.js";
import { $, h } from "./dom.js";

let timer = 0;
let waiting = "";
let again = () => {};

export function setRetry(retry) {
  again = retry;
}

export function clear() {
  clearTimeout(timer);
  waiting = "";
  $("notice").hidden = true;
}

function show(kind, ...content) {
  clearTimeout(timer);
  waiting = kind;
  $("notice").replaceChildren(...content);
  $("notice").hidden = false;
}

// Tell about an error that has no better place. True if the page waits and will try again by itself.
export function report(error) {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 0) return gone(), true;
  if (error.status === 401) return askKey(error.message), true;
  if (error.status === 429 || error.status === 503) {
    const what = error.status === 429 ? "Too many requests at once." : "The server is busy.";
    countdown("wait", what, error.retryAfter, () => (clear(), again()));
    return true;
  }
  show("error", h("span", {}, error.message), h("button", { type: "button", class: "quiet", onclick: clear }, "Dismiss"));
  return false;
}

function countdown(kind, message, seconds, then) {
  const left = h("span", { "aria-hidden": "true" });
  const now = h("button", { type: "button", class: "quiet", onclick: () => (clearTimeout(timer), then()) }, "Try now");
  if (waiting === kind && !$("notice").hidden) $("notice").replaceChildren(h("span", {}, message), left, now); // same story: no second announcement
  else show(kind, h("span", {}, message), left, now);
  clearTimeout(timer);
  const tick = () => {
    left.textContent = `Trying again in ${seconds} s.`;
    if (seconds-- <= 0) then();
    else timer = setTimeout(tick, 1000);
  };
  tick();
}

function gone(wait = 1) {
  countdown("gone", "The server does not answer. Is “embedlab serve” running?", wait, async () => {
    try {
      if (!(await fetch(address("healthz"), { cache: "no-store" })).ok) throw new Error("not healthy");
    } catch {
      return gone(Math.min(wait * 2, 10));
    }
    clear();
    again();
  });
}

function askKey(message) {
  if (waiting === "key") return;
  const input = h("input", { type: "password", autocomplete: "off", "aria-label": "API key", required: true, placeholder: "API key" });
  const form = h("form", { class: "buttons", onsubmit: (event) => {
    event.preventDefault();
    key(input.value.trim());
    clear();
    again();
  } }, input, h("button", { class: "quiet" }, "Use this key"));
  show("key", h("span", {}, key() ? message : "This server is protected. Enter its API key."), form);
  input.focus();
}
