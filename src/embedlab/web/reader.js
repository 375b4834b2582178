// A passage in its document. Beside the hits where there is room, above them where there is not.
import { call, of } from "./api.js";
import { $, copy, h, marked, naming, soft } from "./dom.js";
import { report } from "./notice.js";
import * as results from "./results.js";
import { get, go } from "./state.js";

const wide = matchMedia("(min-width: 70rem)");
const dialog = $("reader");
let shown = ""; // "collection passage"
let around = 3; // passages shown before and after
let current = null;
let opener = null; // what had the focus before

export function openPassage(id, { replace = false } = {}) {
  if (id === get().p) return dialog.open && $("reader-title").focus();
  const opened = Boolean(history.state?.opened);
  go({ p: id }, replace || opened ? { replace: true, mark: history.state } : { mark: { opened: true } });
}

export function close() {
  if (history.state?.opened) history.back(); // so that "back" does not open it again
  else go({ p: "" }, { replace: true });
}

export async function follow(state, before) {
  results.openRow(state.p);
  if (!state.p || state.view === "documents") return hide();
  const wanted = `${state.c} ${state.p}`;
  if (shown === wanted && dialog.open) return;
  shown = wanted;
  around = 3;
  let answer;
  try {
    answer = await fetchPassage(state);
  } catch (error) {
    if (shown !== wanted) return;
    shown = "";
    if (error.status !== 404) return report(error);
    results.openRow("");
    return go({ p: "" }, { replace: true }); // the passage went with a newer version of its document
  }
  if (shown !== wanted) return;
  draw(answer);
  const fresh = !dialog.open;
  if (fresh) opener = document.activeElement;
  reveal();
  if (before && fresh) $("reader-title").focus({ preventScroll: true });
  $("reader-body").querySelector(".here").scrollIntoView({ block: "nearest" });
  if (answer.before.length) $("reader-body").scrollTop = Math.max(0, $("reader-body").querySelector(".here").offsetTop - $("reader-body").offsetTop - 72);
  else $("reader-body").scrollTop = 0;
}

const fetchPassage = (state) => call(`${of(state.c)}/passages/${encodeURIComponent(state.p)}`, { params: { context: around } });

function reveal() {
  if (dialog.open) return;
  if (wide.matches) {
    const focused = document.activeElement;
    dialog.show(); // takes the focus; the caller decides where it belongs
    focused?.focus?.({ preventScroll: true });
  } else dialog.showModal();
}

function hide() {
  const id = shown.split(" ").pop(); // the last one asked for, be it drawn or not
  shown = "";
  if (!dialog.open) return;
  const inside = dialog.contains(document.activeElement) || dialog.matches(":modal");
  dialog.close();
  if (inside) (results.linkOf(id) ?? (opener?.isConnected ? opener : $("query"))).focus({ preventScroll: true });
}

function draw(answer) {
  current = answer;
  const { passage, before, after } = answer;
  const { name, trail } = naming(passage);
  $("reader-title").replaceChildren(...soft(name));
  $("reader-crumbs").replaceChildren(...trail.map((heading) => h("span", {}, soft(heading))));
  $("reader-body").classList.toggle("code", passage.format === "py");
  $("reader-where").replaceChildren(...results.places(passage));
  const more = (side, text) => h("button", { type: "button", class: "link", onclick: () => widen(side) }, text);
  const meta = Object.entries(passage.metadata ?? {});
  $("reader-body").replaceChildren(
    meta.length ? h("p", { class: "meta" }, meta.slice(0, 12).map(([name, value]) => h("span", {}, `${name}: ${value}`))) : "",
    before.length >= around && around < 10 ? more("before", "Show what comes before") : "",
    ...before.map((one) => h("p", { class: "around" }, one.text)),
    h("p", { class: "here" }, ...marked(passage.text, results.hitOf(passage.id)?.highlights)),
    ...after.map((one) => h("p", { class: "around" }, one.text)),
    after.length >= around && around < 10 ? more("after", "Show what follows") : "");
  const list = results.hits.map((hit) => hit.id);
  const at = list.indexOf(passage.id);
  $("reader-up").disabled = at <= 0;
  $("reader-down").disabled = at < 0 || at >= list.length - 1;
}

async function widen(side) {
  around = Math.min(10, around + 3);
  const body = $("reader-body");
  const fromEnd = body.scrollHeight - body.scrollTop;
  try {
    draw(await fetchPassage(get()));
  } catch (error) {
    return report(error);
  }
  if (side === "before") body.scrollTop = body.scrollHeight - fromEnd; // what was being read stays where it was
  body.focus({ preventScroll: true });
}

// The next or previous hit, from within the reader.
export function step(by) {
  const list = results.hits.map((hit) => hit.id);
  const next = list[list.indexOf(get().p) + by];
  if (!next || !list.includes(get().p)) return;
  results.linkOf(next)?.closest(".hit").scrollIntoView({ block: "nearest" });
  openPassage(next, { replace: true });
}

export const isOpen = () => dialog.open;

$("reader-close").addEventListener("click", close);
$("reader-up").addEventListener("click", () => step(-1));
$("reader-down").addEventListener("click", () => step(1));
$("reader-like").addEventListener("click", () => results.like(current.passage.id));
$("reader-source").addEventListener("click", () => go({ source: current.passage.source, p: "", n: 0, view: get().view }));
$("reader-copy").addEventListener("click", (event) => copy(current.passage.text, event.currentTarget));
dialog.addEventListener("cancel", (event) => (event.preventDefault(), close()));
dialog.addEventListener("click", (event) => event.target === dialog && dialog.matches(":modal") && outside(event) && close());
wide.addEventListener("change", () => {
  if (!dialog.open) return;
  dialog.close();
  reveal();
});

function outside(event) {
  const box = dialog.getBoundingClientRect();
  return event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom;
}
