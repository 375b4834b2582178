// The page as a whole: what is asked of the server when the state changes, and the keys.
import { call, key } from "./api.js";
import * as aspects from "./aspects.js";
import * as documents from "./documents.js";
import { $, h, naming } from "./dom.js";
import * as filters from "./filters.js";
import * as map from "./map.js";
import * as notice from "./notice.js";
import * as reader from "./reader.js";
import * as results from "./results.js";
import { address, get, go, keep, settings, start } from "./state.js";
import * as uploads from "./uploads.js";

const DEBOUNCE_MS = 120;
const SETTLED_MS = 1500; // a query that stood this long is worth a step in the history
const REFRESH_MS = 3000; // while somebody writes, every answer is of a newer version
const ASKED = ["c", "q", "mode", "n", "f", "a", "source", "sql", "explain", "w", "like"];

let info = null;
let collections = [];
let refreshed = 0;
const collection = (name = get().c) => collections.find((one) => one.name === name);

/* ---------- what the server holds ---------- */

async function connect() {
  $("busy").hidden = false;
  try {
    [info, { collections }] = await Promise.all([call("api/info"), call("api/collections")]);
  } catch (error) {
    return notice.report(error);
  } finally {
    $("busy").hidden = true;
  }
  notice.clear();
  results.setMaxTopK(info.limits?.top_k ?? 100);
  for (const option of $("set-top-k").options) option.hidden = option.disabled = Number(option.value) > results.maxTopK;
  $("query").maxLength = info.limits?.query_chars ?? 4000;
  $("about").textContent = `embedlab ${info.version}`;
  uploads.start(info, changed);
  drawPicker();
  if (!collection() && collections.length && !get().c) go({ c: preferred() }, { replace: true });
  else follow(get(), null);
  if (collection()) uploads.resume(collection().name).catch(notice.report);
}

const preferred = () => (collections.find((one) => one.name === settings.collection) ?? collections.find((one) => one.documents) ?? collections[0]).name;

function drawPicker() {
  const state = get();
  const names = collections.map((one) => one.name);
  if (state.c && !names.includes(state.c)) names.unshift(state.c);
  $("collection").replaceChildren(...(names.length ? names : ["no collection"]).map((name) => h("option", { value: names.length ? name : "" }, name)));
  $("collection").value = state.c;
  $("collection").disabled = !names.length;
}

// A collection has changed under us (upload, deletion): fetch the facts, and what is shown with them.
async function changed(name) {
  try {
    ({ collections } = await call("api/collections"));
  } catch (error) {
    return notice.report(error);
  }
  drawPicker();
  if (!get().c && collections.length) return go({ c: collection(name)?.name ?? preferred() }, { replace: true });
  if (!name || name === get().c || !collection()) follow(get(), null);
}

/* ---------- the state, made visible ---------- */

async function follow(state, before, popped = false) {
  const differs = (keys) => !before || keys.some((name) => String(state[name]) !== String(before[name]));
  document.documentElement.dataset.view = state.view;
  for (const link of document.querySelectorAll("[data-goto]")) {
    link.href = address({ ...state, view: link.dataset.goto, p: "" });
    if (link.dataset.goto === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (document.activeElement !== $("query") || popped) $("query").value = state.q; // never what is being typed
  for (const radio of document.getElementsByName("mode")) radio.checked = radio.value === state.mode;
  $("explain").checked = state.explain;
  $("collection").value = state.c;
  document.title = [state.q || (state.like && "More like this"), state.c, "embedlab"].filter(Boolean).join(" · ");
  filters.follow(state, popped);
  if (!info) return;
  const here = collection();
  aspects.follow(state, here);
  $("query").placeholder = here?.passages ? `Search ${here.name}` : "Search";
  if (!here) return missing(state);
  if (settings.collection !== here.name) keep({ collection: here.name });
  if (state.view === "documents") {
    results.stop();
    if (differs(["view", "c"])) documents.show(here, { info, changed });
    return void reader.follow(state, before);
  }
  reader.follow(state, before);
  map.load(here);
  if (before && !popped && differs(["c", "q", "like", "f", "a", "source", "sql"])) scrollTo(0, 0);
  if (differs(ASKED) || before.view === "documents") await ask(state, here);
  else if (differs(["view"])) map.light(results.hits);
}

function missing(state) {
  if (state.c) {
    results.clear(h("div", { class: "state" }, h("h2", {}, `There is no collection “${state.c}”`), h("p", {}, collections.length ? "It may have been removed or renamed." : "Nothing is indexed yet."),
      collections.length ? h("div", { class: "buttons" }, collections.slice(0, 8).map((one) => h("button", { type: "button", class: "quiet", onclick: () => go({ c: one.name }) }, one.name))) : ""));
  } else results.clear(...documents.welcome(info, changed));
  documents.show(null, { info, changed });
  reader.follow({ ...state, p: "" });
  map.load(null);
}

async function ask(state, here) {
  filters.sqlError("");
  const facets = filters.load(here).then(() => filters.draw(get()), (error) => error.status === 404 || notice.report(error));
  const query = state.q.trim();
  if (!query && !state.like) {
    results.stop();
    await facets;
    if (get() !== state) return;
    results.clear(results.overview(here, filters.all(), filters.toggle));
    return map.light([]);
  }
  if (state.f.length) await facets; // they know the conditions
  try {
    const answer = await results.search(get());
    if (!answer) return;
    if ($("notice").hidden === false) notice.clear();
    results.show(answer, get());
    map.light(results.hits);
    if (state.like) nameOrigin(state);
    if (answer.version !== here.version && Date.now() - refreshed > REFRESH_MS) {
      refreshed = Date.now();
      changed(here.name); // somebody else writes to it
    } else if (reader.isOpen()) reader.follow(get(), null);
  } catch (error) {
    failed(error, state);
  }
}

function failed(error, state) {
  if (error.field === "filter" && state.sql) {
    filters.sqlError(error.message);
    results.clear(h("div", { class: "state" }, h("h2", {}, "The condition was not understood"), h("p", {}, "Mend it above, or search without it."),
      h("div", { class: "buttons" }, h("button", { type: "button", class: "quiet", onclick: () => go({ sql: "" }) }, "Search without it"))));
    map.light([]);
  } else if (error.status === 404 && state.like) {
    go({ like: "" }, { replace: true }); // the passage it was about is gone
  } else if (error.status === 404) {
    changed(state.c);
  } else if ([0, 401, 429, 503].includes(error.status)) {
    notice.report(error); // it will be tried again
  } else {
    results.clear(h("div", { class: "state" }, h("h2", {}, "This search did not work"), h("p", {}, error.message)));
    map.light([]);
  }
}

async function nameOrigin(state) {
  try {
    const { passage } = await call(`api/collections/${encodeURIComponent(state.c)}/passages/${encodeURIComponent(state.like)}`, { params: { context: 0 } });
    const name = $("like-name");
    if (name && get().like === state.like) name.textContent = `Like: ${naming(passage).name}`;
  } catch (error) {
    if (error.status !== 404) notice.report(error);
  }
}

/* ---------- typing ---------- */

let typing = 0;
let settled = 0;
let stepped = false; // this burst of typing has its step in the history

$("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(type, DEBOUNCE_MS);
});

function type() {
  clearTimeout(typing);
  const q = $("query").value;
  if (q === get().q && !(get().like && q)) return;
  go({ q, like: "", n: 0, ...(reader.isOpen() && { p: "" }) }, { replace: stepped });
  stepped = true;
  clearTimeout(settled);
  settled = setTimeout(() => (stepped = false), SETTLED_MS);
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  type();
  stepped = false;
  if (matchMedia("(hover: none)").matches) $("query").blur(); // puts the phone's keyboard away
});

/* ---------- pointing ---------- */

for (const radio of document.getElementsByName("mode")) radio.addEventListener("change", () => go({ mode: radio.value, n: 0 }));
$("explain").addEventListener("change", () => go({ explain: $("explain").checked }));
$("collection").addEventListener("change", () => go({ c: $("collection").value, f: [], a: [], source: "", sql: "", like: "", p: "", n: 0 }));
$("more").addEventListener("click", () => go({ n: Math.min(results.hits.length + settings.topK, results.maxTopK) }, { replace: true }));
$("brand").addEventListener("click", (event) => plain(event) && go({ q: "", like: "", p: "", f: [], a: [], source: "", sql: "", n: 0, view: "search" }));
for (const link of document.querySelectorAll("[data-goto]")) link.addEventListener("click", (event) => plain(event) && view(link.dataset.goto));
$("hits").addEventListener("click", (event) => {
  const link = event.target.closest("a[data-id]");
  if (link && plain(event)) (stepped = false), reader.openPassage(link.dataset.id);
});
$("hits").addEventListener("focusin", (event) => {
  const link = event.target.closest("a[data-id]");
  if (link && reader.isOpen() && !$("reader").matches(":modal") && link.dataset.id !== get().p && link.matches(":focus-visible")) reader.openPassage(link.dataset.id, { replace: true });
});

function plain(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button) return false; // a new tab was asked for
  event.preventDefault();
  return true;
}

const view = (name) => (go({ view: name, p: "" }), name === "map" && map.fit());

/* ---------- documents on their way in ---------- */

function add(files) {
  if (!files.length) return;
  if (!info) return;
  const into = (name) => uploads.send(name, files).catch(notice.report);
  if (collection()) into(collection().name);
  else documents.create(changed, { then: into, text: "The documents need a collection to go into." });
}

$("add").addEventListener("click", () => $("files").click());
for (const input of [$("files"), $("folder")]) input.addEventListener("change", () => (add(uploads.picked(input)), (input.value = "")));

let depth = 0; // dragenter and dragleave come in pairs for every element passed
const files = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (!files(event)) return;
  event.preventDefault();
  depth += 1;
  $("drop").hidden = false;
  $("drop").firstElementChild.textContent = collection() ? `Drop to add to ${collection().name}` : "Drop to start a collection";
});
addEventListener("dragleave", (event) => files(event) && ((depth -= 1) || ($("drop").hidden = true)));
addEventListener("dragover", (event) => files(event) && event.preventDefault());
addEventListener("drop", async (event) => {
  if (!files(event)) return;
  event.preventDefault();
  depth = 0;
  $("drop").hidden = true;
  add(await uploads.dropped(event.dataTransfer));
});

/* ---------- settings ---------- */

function theme(value) {
  document.documentElement.dataset.theme = value;
  $("set-theme").value = value;
  keep({ theme: value });
  map.recolour();
}

const dark = () => (settings.theme === "system" ? matchMedia("(prefers-color-scheme: dark)").matches : settings.theme === "dark");
$("theme").addEventListener("click", () => theme(dark() ? "light" : "dark"));
$("set-theme").addEventListener("change", () => theme($("set-theme").value));
$("set-top-k").addEventListener("change", () => (keep({ topK: Number($("set-top-k").value) }), go({ n: 0 }), again()));
$("set-key").addEventListener("change", () => (key($("set-key").value.trim()), connect()));
$("set-own").addEventListener("change", weight);
$("set-weight").addEventListener("input", weight);

let weighing = 0;
function weight() {
  const own = $("set-own").checked;
  const value = own ? "" : Number($("set-weight").value).toFixed(2);
  $("set-weight").disabled = own;
  $("set-weight-out").textContent = own ? "own" : value;
  clearTimeout(weighing);
  weighing = setTimeout(() => (keep({ weight: value }), go({ w: "" }, { replace: true }), again()), DEBOUNCE_MS);
}

const again = () => collection() && get().view !== "documents" && ask(get(), collection());

$("open-settings").addEventListener("click", () => {
  const now = get().w !== "" ? get().w : settings.weight;
  $("set-top-k").value = settings.topK;
  $("set-theme").value = settings.theme;
  $("set-key").value = key();
  $("set-own").checked = $("set-weight").disabled = now === "";
  $("set-weight").value = now === "" ? 0.5 : now;
  $("set-weight-out").textContent = now === "" ? "own" : Number(now).toFixed(2);
  $("settings").showModal();
});
$("open-help").addEventListener("click", () => $("help").showModal());
for (const sheet of document.querySelectorAll(".sheet")) sheet.addEventListener("click", (event) => {
  const box = sheet.getBoundingClientRect();
  if (event.target === sheet && (event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom)) sheet.close();
});

/* ---------- keys ---------- */

const next = (step) => ($("reader").contains(document.activeElement) ? reader.step(step) : results.move(step));
const KEYS = {
  "/": () => ($("query").focus(), $("query").select()),
  j: () => next(1),
  k: () => next(-1),
  ArrowDown: () => next(1),
  ArrowUp: () => next(-1),
  m: () => {
    const id = document.activeElement?.closest?.(".hit")?.querySelector("a[data-id]").dataset.id ?? get().p;
    if (id) results.like(id);
  },
  e: () => go({ explain: !get().explain }),
  f: () => (filters.open(), $("filters").hidden || ($("filters").querySelector("input") ?? $("sql")).focus()),
  a: () => $("toggle-aspects").hidden || $("toggle-aspects").disabled || aspects.open(),
  1: () => view("search"),
  2: () => view("map"),
  3: () => view("documents"),
  u: () => $("add").click(),
  t: () => $("theme").click(),
  "?": () => $("help").showModal(),
};

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector(".sheet[open]")) return;
  const at = document.activeElement;
  const writes = at?.matches("input:not([type=checkbox]):not([type=radio]), select, textarea");
  if (event.key === "Escape") return escape(event, at);
  if (at === $("query") && event.key === "ArrowDown") return event.preventDefault(), void results.move(1);
  if (writes || !KEYS[event.key]) return;
  const arrow = event.key.startsWith("Arrow");
  if (arrow && !at.closest("#hits") && at !== document.body) return; // arrows belong to radio buttons, scrolled areas and the like
  if (get().view === "documents" && !"123ut?".includes(event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});

function escape(event, at) {
  if (reader.isOpen()) return event.preventDefault(), reader.close();
  if (!$("filters").hidden && $("filters").contains(at)) return filters.open(false), $("toggle-filters").focus();
  if (!$("aspects").hidden && $("aspects").contains(at)) return aspects.open(false), $("toggle-aspects").focus();
  if (get().view === "documents") return;
  if (at === $("query") && at.value) return event.preventDefault(), (at.value = ""), type();
  if (at?.closest("#hits")) return $("query").focus();
  if (get().like) go({ like: "" });
}

/* ---------- go ---------- */

for (const button of document.querySelectorAll(".tool[aria-label]")) button.title = button.getAttribute("aria-label");
map.start((id) => reader.openPassage(id));
notice.setRetry(() => (info ? changed() : connect()));
matchMedia("(min-width: 70rem)").addEventListener("change", () => collection() && (map.load(collection()), map.light(results.hits)));
start(follow);
connect();
if (matchMedia("(hover: hover)").matches && !get().p) $("query").focus({ preventScroll: true });
