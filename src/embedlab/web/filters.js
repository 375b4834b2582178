// Choices by facet, one document, or a condition typed by hand: they become one condition for the server.
import { call, of } from "./api.js";
import { called, chosen, without } from "./aspects.js";
import { $, h, icon, number } from "./dom.js";
import { get, go } from "./state.js";

// Where the server lists no such value, e.g. because it is rare.
const guess = (field, value) => (field === "folder" ? `starts_with(source, ${quoted(`${value}/`)})` : `\`${field.replaceAll("`", "")}\` = ${quoted(value)}`);

let facets = [];
let loadedFor = "";
let loading = null;

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
const split = (choice) => [choice.slice(0, choice.indexOf(":")), choice.slice(choice.indexOf(":") + 1)];

export const active = (state) => state.f.length + (state.source ? 1 : 0) + (state.sql ? 1 : 0);
export const all = () => facets;

// Fetch the facets of a collection unless those of this version are here.
export function load(collection) {
  const wanted = `${collection.name}@${collection.version}`;
  if (wanted !== loadedFor || !loading) {
    loadedFor = wanted;
    loading = call(`${of(collection.name)}/facets`).then((answer) => {
      if (wanted === loadedFor) facets = answer.facets;
    }, (error) => {
      if (wanted === loadedFor) loadedFor = "";
      throw error;
    });
  }
  return loading;
}

export function condition(state) {
  const fields = new Map();
  for (const choice of state.f) {
    const [field, value] = split(choice);
    const listed = facets.find((facet) => facet.field === field)?.values.find((one) => String(one.value) === value);
    fields.set(field, [...(fields.get(field) ?? []), listed?.filter ?? guess(field, value)]);
  }
  const all = [...fields.values()].map((rules) => (rules.length > 1 ? `(${rules.join(" OR ")})` : rules[0]));
  if (state.source) all.push(`source = ${quoted(state.source)}`);
  if (state.sql) all.push(all.length ? `(${state.sql})` : state.sql);
  return all.join(" AND ");
}

export function toggle(field, value) {
  const choice = `${field}:${value}`;
  const f = get().f;
  go({ f: f.includes(choice) ? f.filter((one) => one !== choice) : [...f, choice], n: 0 });
}

export function draw(state) {
  const useful = facets.filter((facet) => facet.values.length > 1 || state.f.some((choice) => split(choice)[0] === facet.field));
  $("facets").replaceChildren(...useful.map((facet) => h("fieldset", { class: "facet" },
    h("legend", {}, facet.field),
    h("div", { class: "choices" }, facet.values.map((one) => h("label", {},
      h("input", { type: "checkbox", checked: state.f.includes(`${facet.field}:${one.value}`), dataset: { choice: `${facet.field}:${one.value}` }, onchange: () => toggle(facet.field, one.value) }),
      h("span", {}, String(one.value)), h("small", {}, number(one.documents))))))));
  follow(state);
}

export function follow(state, popped = false) {
  for (const box of $("facets").querySelectorAll("input")) box.checked = state.f.includes(box.dataset.choice);
  if (popped || document.activeElement !== $("sql")) $("sql").value = state.sql;
  const chip = (text, label, patch) => h("button", { type: "button", class: "chip", "aria-label": `Remove filter ${label}`, onclick: () => (go({ ...patch, n: 0 }), $("query").focus()) }, h("span", {}, text), icon("close"));
  const chips = state.f.map((choice) => chip(split(choice)[1], choice, { f: state.f.filter((one) => one !== choice) }));
  if (state.source) chips.push(chip(state.source, `document ${state.source}`, { source: "" }));
  if (state.sql) chips.push(chip(state.sql, `condition ${state.sql}`, { sql: "" }));
  for (const [name, weight] of chosen(state)) chips.push(h("button", { type: "button", class: "chip", "aria-label": `Remove aspect ${called(name)}`, onclick: () => (go({ a: without(get(), name), n: 0 }), $("query").focus()) }, h("span", {}, `${called(name)} × ${weight}`), icon("close")));
  if (state.like) chips.unshift(h("button", { type: "button", class: "chip", "aria-label": "Leave more like this", onclick: () => (go({ like: "", n: 0 }), $("query").focus()) }, h("span", { id: "like-name" }, "Like one passage"), icon("close")));
  $("chips").replaceChildren(...chips);
  $("chips").hidden = !chips.length;
  $("filter-count").hidden = !active(state);
  $("filter-count").textContent = active(state);
}

export function open(wanted = $("filters").hidden) {
  $("filters").hidden = !wanted;
  $("toggle-filters").setAttribute("aria-expanded", String(wanted));
}

export function sqlError(message) {
  $("sql-error").textContent = message;
  if (message) {
    $("sql").setAttribute("aria-invalid", "true");
    open(true);
  } else $("sql").removeAttribute("aria-invalid");
}

$("toggle-filters").addEventListener("click", () => open());
$("sql-form").addEventListener("submit", (event) => {
  event.preventDefault();
  go({ sql: $("sql").value.trim(), n: 0 });
});
$("sql").addEventListener("input", () => sqlError(""));
