// The documents of a collection: find, remove, add; and collections themselves: make, delete.
import { call, of } from "./api.js";
import { $, ago, bytes, command, h, icon, number, plural } from "./dom.js";
import { report } from "./notice.js";
import { go } from "./state.js";

const PAGE = 50;
let offset = 0;
let prefix = "";
let drawn = ""; // the collection the frame was drawn for
let ticket = 0;

export async function show(collection, { info, changed }) {
  const place = $("documents");
  if (!collection) return place.replaceChildren(...welcome(info, changed));
  if (drawn !== collection.name) [offset, prefix] = [0, ""];
  drawn = collection.name;
  const mine = ++ticket;
  let answer;
  try {
    answer = await call(`${of(collection.name)}/documents`, { params: { offset, limit: PAGE, prefix } });
  } catch (error) {
    return mine === ticket && report(error);
  }
  if (mine !== ticket) return;
  const typing = document.activeElement?.id === "prefix" ? document.activeElement.selectionStart : null;
  place.replaceChildren(shelf(collection, info, changed), finder(collection, { info, changed }), ...table(answer, collection, { info, changed }));
  if (typing !== null) $("prefix").focus(), $("prefix").setSelectionRange(typing, typing);
}

function shelf(collection, info, changed) {
  const facts = [plural(collection.documents, "document"), plural(collection.passages, "passage"), bytes(collection.bytes), `${collection.model} model, ${collection.dim} axes`, `changed ${ago(collection.updated)}`];
  return h("div", { class: "shelf" },
    h("div", {}, h("h1", {}, collection.name), h("p", { class: "hint" }, facts.join(" · "))),
    h("div", { class: "buttons" },
      h("button", { type: "button", class: "primary", onclick: () => $("add").click() }, icon("upload"), "Add documents"),
      h("button", { type: "button", class: "quiet", onclick: () => $("folder").click() }, "Add a folder"),
      info.can_create && h("button", { type: "button", class: "quiet", onclick: () => create(changed) }, "New collection"),
      h("button", { type: "button", class: "quiet danger", onclick: () => drop(collection, changed) }, "Delete")));
}

let waiting = 0;
function finder(collection, context) {
  const input = h("input", { id: "prefix", type: "text", placeholder: "Sources that start with …", "aria-label": "Sources that start with", spellcheck: "false", autocapitalize: "none", value: prefix, oninput: () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => (([offset, prefix] = [0, input.value]), show(collection, context)), 150);
  } });
  return h("div", { class: "find" }, input);
}

function table(answer, collection, context) {
  if (!answer.total) return [h("div", { class: "state" },
    h("h2", {}, prefix ? "No such source" : `“${collection.name}” is empty`),
    ...(prefix ? [] : [h("p", {}, "Drop files or a folder anywhere on this page, or from the terminal:"), command(`embedlab index DOCS --into ${collection.name}`)]))];
  const turn = (by) => ((offset = Math.max(0, offset + by)), show(collection, context).then(() => scrollTo(0, 0)));
  const rows = answer.documents.map((one) => h("tr", {},
    h("td", {}, h("a", { href: "#", class: "plain", onclick: (event) => (event.preventDefault(), go({ view: "search", source: one.source, p: "" })), "aria-label": `Search in ${one.source}` }, one.title || one.source), h("span", { class: "mono" }, one.source)),
    h("td", { class: "wide" }, one.format),
    h("td", { class: "num" }, number(one.passages)),
    h("td", {}, h("button", { type: "button", class: "link danger", "aria-label": `Remove ${one.source}`, onclick: () => remove(one, collection, context) }, "Remove"))));
  const last = Math.min(answer.total, offset + PAGE);
  return [
    h("table", { class: "table" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Document"), h("th", { class: "wide", scope: "col" }, "Format"), h("th", { class: "num", scope: "col" }, "Passages"), h("th", {}, h("span", { class: "sr" }, "Remove")))), h("tbody", {}, rows)),
    h("div", { class: "pager" }, h("span", { role: "status" }, `${number(offset + 1)}–${number(last)} of ${number(answer.total)}`),
      h("button", { type: "button", class: "quiet", disabled: offset === 0, onclick: () => turn(-PAGE) }, "Back"),
      h("button", { type: "button", class: "quiet", disabled: last >= answer.total, onclick: () => turn(PAGE) }, "Next")),
  ];
}

function ask({ title, text, action, danger, field }) {
  const dialog = $("ask");
  const error = h("p", { class: "error", role: "alert" });
  const input = field && h("input", { type: "text", required: true, maxlength: "64", pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", title: "Letters, digits, - _ . starting with a letter or digit", spellcheck: "false", autocapitalize: "none", "aria-label": field });
  const form = h("form", { method: "dialog", onsubmit: async (event) => {
    event.preventDefault();
    try {
      await action.run(input?.value.trim());
      dialog.close();
    } catch (failure) {
      error.textContent = failure.message;
    }
  } }, h("h2", { id: "ask-title" }, title), text && h("p", { class: "hint" }, text), input, error,
  h("div", { class: "buttons" }, h("button", { class: `primary${danger ? " stop" : ""}` }, action.name), h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel")));
  dialog.replaceChildren(form);
  dialog.showModal();
}

export function create(changed, { then = () => {}, text = "" } = {}) {
  ask({ title: "New collection", text, field: "Name", action: { name: "Create", run: async (name) => {
    await call("api/collections", { method: "POST", json: { name } });
    await changed(name);
    go({ c: name, q: "", like: "", p: "", f: [], source: "", sql: "", n: 0 });
    then(name);
  } } });
}

function drop(collection, changed) {
  ask({ title: `Delete “${collection.name}”?`, danger: true,
    text: `Its ${plural(collection.documents, "document")} can then no longer be searched; files that were uploaded are deleted too. Folders that were indexed in place stay as they are.`,
    action: { name: "Delete the collection", run: async () => {
      await call(of(collection.name), { method: "DELETE" });
      go({ c: "", q: "", like: "", p: "", f: [], source: "", sql: "" }, { replace: true });
      await changed(collection.name);
    } } });
}

function remove(one, collection, context) {
  ask({ title: "Remove this document?", text: one.source, danger: true,
    action: { name: "Remove", run: async () => {
      await call(`${of(collection.name)}/documents`, { method: "DELETE", params: { source: one.source } });
      await context.changed(collection.name);
    } } });
}

// No collection at all: the first thing anybody sees.
export function welcome(info, changed) {
  return [h("div", { class: "state" },
    h("h2", {}, "Nothing to search yet"),
    h("p", {}, "Index a folder of documents from the terminal, then reload this page:"),
    command("embedlab index DOCS"),
    info.can_create && h("p", {}, "Or drop files or a folder anywhere on this page. They stay on the machine that runs the server."),
    info.can_create && h("div", { class: "buttons" },
      h("button", { type: "button", class: "primary", onclick: () => $("add").click() }, icon("upload"), "Add documents"),
      h("button", { type: "button", class: "quiet", onclick: () => create(changed) }, "New collection")))];
}
