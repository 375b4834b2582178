// Elements made by hand. Strings become text nodes and nothing is ever parsed as HTML: documents may hold anything.

export const $ = (id) => document.getElementById(id);

export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export const number = (value) => value.toLocaleString("en");
export const plural = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

export function bytes(value) {
  const units = ["B", "KB", "MB", "GB"];
  let step = 0;
  while (value >= 1000 && step < 3) [value, step] = [value / 1000, step + 1];
  return `${value < 10 && step ? value.toFixed(1) : Math.round(value)} ${units[step]}`;
}

export function ago(seconds) {
  const past = Date.now() / 1000 - seconds;
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]])
    if (past >= size) return words.format(-Math.floor(past / size), unit);
  return "just now";
}

// Offsets from the API count code points; JavaScript counts UTF-16 units. Arrays of code points bridge the two.
export const codePoints = (text) => (/[\ud800-\udfff]/.test(text) ? Array.from(text) : text);
export const cut = (points, start, end) => (typeof points === "string" ? points.slice(start, end) : points.slice(start, end).join(""));

// The text with its highlights as <mark>, from `start` to `end` (code points).
export function marked(text, spans = [], start = 0, end = Infinity) {
  const points = codePoints(text);
  const stop = Math.min(end, points.length);
  const nodes = [];
  let at = start;
  for (const [from, to] of spans) {
    const [left, right] = [Math.max(from, at), Math.min(to, stop)];
    if (left >= right) continue;
    if (left > at) nodes.push(cut(points, at, left));
    nodes.push(h("mark", {}, cut(points, left, right)));
    at = right;
  }
  if (at < stop) nodes.push(cut(points, at, stop));
  return nodes;
}

// Long names may break behind their dots, dashes and slashes.
export const soft = (text) => text.split(/(?<=[._/-])/).flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));

// What a passage is called: its nearest heading; the document and what lies between are the trail to it.
export function naming(passage) {
  const trail = [passage.title || passage.source, ...passage.headings].filter((name, i, all) => name && name !== all[i - 1]);
  const name = trail.pop();
  return { name, trail: trail.filter((part) => !name.startsWith(`${part}.`)) };
}

export async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed here"; // the browser gives the clipboard to secure pages only
  }
  setTimeout(() => (button.textContent = before), 1500);
}

export function command(text) {
  const button = h("button", { type: "button", class: "quiet", onclick: () => copy(text, button) }, "Copy");
  button.setAttribute("aria-label", `Copy the command ${text}`);
  return h("div", { class: "command" }, h("code", { tabindex: "0" }, text), button);
}
