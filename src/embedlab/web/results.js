// The list of hits: one search at a time, the newest wins, and old hits stay in place until the new ones are there.
import { call, of } from "./api.js";
import * as aspects from "./aspects.js";
import { $, codePoints, command, cut, h, icon, marked, naming, number, plural, soft } from "./dom.js";
import { condition } from "./filters.js";
import { address, get, go, settings } from "./state.js";

const narrow = matchMedia("(max-width: 47.9rem)");

let ticket = 0;
let controller = null;
let busyTimer = 0;
export let hits = [];
export let maxTopK = 100;

export const setMaxTopK = (value) => (maxTopK = value);
export const hitOf = (id) => hits.find((hit) => hit.id === id);

export function stop() {
  ticket += 1;
  controller?.abort();
  setBusy(false);
}

function setBusy(busy) {
  clearTimeout(busyTimer);
  if (busy) {
    busyTimer = setTimeout(() => ($("busy").hidden = false), 250); // quick answers shall not flicker
    $("hits").classList.add("stale");
  } else {
    $("busy").hidden = true;
    $("hits").classList.remove("stale");
  }
}

// Returns the answer, or null if a newer search has taken over.
export async function search(state) {
  stop();
  const mine = ticket;
  controller = new AbortController();
  setBusy(true);
  const topK = Math.min(state.n || settings.topK, maxTopK);
  const params = { top_k: topK, filter: condition(state), aspect: aspects.params(state) };
  const path = state.like ? `${of(state.c)}/passages/${encodeURIComponent(state.like)}/similar` : `${of(state.c)}/search`;
  if (!state.like) {
    Object.assign(params, { query: state.q.trim(), mode: state.mode, explain: state.explain });
    const weight = state.w !== "" ? state.w : settings.weight;
    if (state.mode === "hybrid" && weight !== "") params.weight = weight;
  }
  try {
    const answer = await call(path, { params, signal: controller.signal });
    if (mine !== ticket) return null;
    setBusy(false);
    return { ...answer, topK };
  } catch (error) {
    if (error.name === "AbortError" || mine !== ticket) return null;
    setBusy(false);
    throw error;
  }
}

export function show(answer, state) {
  hits = answer.hits;
  const strongest = Math.max(...hits.map((hit) => hit.parts?.bm25 ?? 0), 0);
  const focused = $("hits").contains(document.activeElement);
  const at = document.activeElement?.dataset?.id;
  $("hits").replaceChildren(...hits.map((hit, index) => row(hit, index, state, strongest)));
  $("state").replaceChildren(...(hits.length ? [] : [nothing(state)]));
  $("more").hidden = hits.length < answer.topK || answer.topK >= maxTopK;
  const took = answer.took_ms == null ? "" : `, ${answer.took_ms < 10 ? answer.took_ms.toFixed(1) : Math.round(answer.took_ms)} ms`;
  $("status").textContent = hits.length ? plural(hits.length, "passage") + took : `Nothing found${took}`;
  if (focused) (linkOf(at) ?? $("hits").querySelector("a[data-id]") ?? $("query")).focus({ preventScroll: true });
  openRow(state.p);
}

export function clear(...content) {
  hits = [];
  $("hits").replaceChildren();
  $("state").replaceChildren(...content);
  $("more").hidden = true;
  $("status").textContent = "";
}

export const linkOf = (id) => [...$("hits").querySelectorAll("a[data-id]")].find((link) => link.dataset.id === id);

export function openRow(id) {
  for (const link of $("hits").querySelectorAll("a[data-id]")) {
    const open = link.dataset.id === id;
    link.closest(".hit").classList.toggle("open", open);
    if (open) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

// Move the focus by one hit; from outside the list to its first.
export function move(step) {
  const links = [...$("hits").querySelectorAll("a[data-id]")];
  if (!links.length) return null;
  const at = links.indexOf(document.activeElement?.closest?.(".hit")?.querySelector("a[data-id]"));
  if (at + step < 0) return $("query").focus(), null;
  const next = links[Math.min(at + step, links.length - 1)];
  next.focus({ preventScroll: true });
  next.closest(".hit").scrollIntoView({ block: "nearest" });
  return next.dataset.id;
}

function row(hit, index, state, strongest) {
  const url = address({ ...get(), p: hit.id });
  const { name, trail } = naming(hit);
  const link = h("a", { href: url, dataset: { id: hit.id } }, soft(name));
  return h("li", { class: "hit" },
    h("span", { class: "rank", "aria-hidden": "true" }, String(index + 1)),
    h("article", {},
      h("h3", {}, link),
      crumbs(trail),
      h("p", { class: "snippet" }, ...snippet(hit)),
      hit.parts && !state.like && parts(hit, strongest),
      h("div", { class: "foot" }, where(hit), h("div", { class: "acts" },
        h("button", { type: "button", class: "link", "aria-label": `More like this: ${name}`, onclick: () => like(hit.id) }, "More like this"),
        h("button", { type: "button", class: "link", "aria-label": `Only this document: ${hit.source}`, onclick: () => go({ source: hit.source, n: 0 }) }, "Only this document")))));
}

export const like = (id) => go({ like: id, q: "", p: "", n: 0, view: get().view === "documents" ? "search" : get().view });

export const crumbs = (trail) => (trail.length ? h("p", { class: "crumbs" }, trail.map((heading) => h("span", {}, soft(heading)))) : null);

export const places = (hit) => [hit.source, hit.page != null && `page ${hit.page}`, `${number(hit.start)}–${number(hit.end)}`].filter(Boolean).map((part) => h("span", {}, soft(part)));
const where = (hit) => h("p", { class: "where", title: "Source and place, in characters of the document's text" }, places(hit));

// The part of the passage that answers best or holds most highlights; the beginning, if that is as good.
function snippet(hit) {
  const size = narrow.matches ? 260 : 420; // code points
  const points = codePoints(hit.text);
  if (points.length <= size * 1.2) return marked(hit.text, hit.highlights);
  const covered = (from) => hit.highlights.reduce((sum, [a, b]) => sum + (a >= from && b <= from + size ? b - a : 0), 0);
  let [best, most] = [0, covered(0)];
  const [sentence, stop] = hit.best_sentence ?? [0, 0];
  if (stop > size) [best, most] = [sentence, Infinity];
  for (const [a] of hit.highlights) if (covered(Math.max(0, a - 80)) > most) [best, most] = [Math.max(0, a - 80), covered(Math.max(0, a - 80))];
  let from = Math.min(best, points.length - size);
  let to = from + size;
  const blank = (at) => /\s/.test(points[at]);
  for (let i = 0; from > 0 && i < 30 && !blank(from - 1); i++) from += 1;
  for (let i = 0; to < points.length && i < 30 && !blank(to); i++) to -= 1;
  return [from > 0 && "… ", ...marked(hit.text, hit.highlights, from, to), to < points.length && " …"].filter(Boolean);
}

// How the score came about. Bars show what was fused, each part scaled by the best of its list; figures are as measured.
function parts({ parts, matched, shared, score }, best) {
  const row = (kind, name, value, digits, rank, shares) => h("div", { class: kind },
    h("dt", {}, name),
    h("dd", { class: "track", "aria-hidden": "true" }, shares.map(fill)),
    h("dd", {}, value == null ? "–" : value.toFixed(digits)),
    h("dd", {}, rank == null ? "" : `#${rank}`));
  const near = parts.cosine_normalised ?? parts.cosine ?? 0;
  const words = parts.bm25_normalised ?? (parts.bm25 ?? 0) / (best || 1);
  const fused = parts.weight != null && row("fused", "score", score, 3, null, [parts.weight * near, (1 - parts.weight) * words]);
  return h("dl", { class: "parts", "aria-label": "Scores" },
    (fused || parts.cosine != null) && row("dense", "meaning", parts.cosine, 3, parts.dense_rank, [near]),
    Object.entries(parts).filter(([name]) => name.startsWith("aspect ")).map(([name, cosine]) => row("dense", aspects.called(name.slice(7)), cosine, 3, null, [(cosine + 1) / 2])),
    (fused || parts.bm25 != null) && row("lexical", "words", parts.bm25, 1, parts.lexical_rank, [0, words]),
    fused,
    matched?.length ? h("div", { class: "matched" }, h("dt", {}, "matches"), h("dd", {}, matched.join(", "))) : null,
    shared?.length ? h("div", { class: "matched" }, h("dt", {}, "shares"), h("dd", {}, shared.slice(0, 6).map(([name, adds]) => `${name} ${adds.toFixed(3)}`).join(", "))) : null);
}

function fill(share) {
  const node = h("span", { class: "fill" });
  node.style.width = `${100 * Math.min(1, Math.max(0, share || 0))}%`;
  return node;
}

function nothing(state) {
  const filtered = state.f.length || state.source || state.sql;
  return h("div", { class: "state" },
    h("h2", {}, "Nothing found"),
    h("p", {}, filtered ? "No passage fits both the search and the filters." : state.mode === "lexical"
      ? "No passage holds these words. Hybrid also finds passages that say the same in other words." : "No passage comes near. Fewer or other words may."),
    h("div", { class: "buttons" },
      filtered && h("button", { type: "button", class: "primary", onclick: () => go({ f: [], source: "", sql: "" }) }, "Clear the filters"),
      !filtered && state.mode === "lexical" && h("button", { type: "button", class: "primary", onclick: () => go({ mode: "hybrid" }) }, "Search hybrid")));
}

// What a collection looks like before the first query.
export function overview(collection, facets, choose) {
  if (!collection.documents) {
    return h("div", { class: "state" },
      h("h2", {}, `“${collection.name}” is empty`),
      h("p", {}, "Drop files or a folder anywhere on this page, or index a folder from the terminal:"),
      command(`embedlab index DOCS --into ${collection.name}`),
      h("div", { class: "buttons" }, h("button", { type: "button", class: "primary", onclick: () => $("add").click() }, icon("upload"), "Add documents")));
  }
  return h("div", { class: "state" },
    h("h2", {}, `${plural(collection.passages, "passage")} from ${plural(collection.documents, "document")}`),
    h("p", {}, "Ask in your own words, or type the exact ones: both are searched."),
    facets.filter((facet) => facet.values.length > 1).map((facet) => h("div", { class: "facet" },
      h("p", { class: "hint" }, `Only one ${facet.field}`),
      h("div", { class: "buttons" }, facet.values.slice(0, 8).map((one) =>
        h("button", { type: "button", class: "quiet", onclick: () => choose(facet.field, one.value) }, cut(codePoints(String(one.value)), 0, 40)))))));
}
