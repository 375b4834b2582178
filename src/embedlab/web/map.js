// The collection on two axes: pan, zoom, point at, open. Hits of the last search light up.
import { call, of } from "./api.js";
import { $, h, number, plural } from "./dom.js";
import { report } from "./notice.js";
import { get } from "./state.js";

const COLOURS = 8; // further groups share one
const LIMIT = 3000;
const NEAR = 14; // px within which a point counts as pointed at

const canvas = $("canvas");
const pen = canvas.getContext("2d");
const view = { x: 0, y: 0, zoom: 1 };
let home = { width: 1, height: 1 }; // half of what "everything" spans
let open = () => {};
let loadedFor = "";
let points = []; // {id, x, y, source, title, group, colour}
let byId = new Map();
let lit = []; // the hits that have a place, best first: {point, rank}
let group = -1; // the group picked in the legend
let current = null; // under the pointer or the keyboard
let palette = {};
let pins = []; // the lit ones as drawn
let frame = 0;

export function start(onOpen) {
  open = onOpen;
  new ResizeObserver(redraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
}

export const visible = () => canvas.offsetParent !== null;

// null: there is no collection
export async function load(collection) {
  const wanted = collection ? `${collection.name}@${collection.version}` : "none";
  if (wanted === loadedFor || !visible()) return;
  loadedFor = wanted;
  if (!collection?.passages) return fill({});
  try {
    const answer = await call(`${of(collection.name)}/map`, { params: { limit: LIMIT } });
    if (wanted === loadedFor) fill(answer);
  } catch (error) {
    if (wanted !== loadedFor) return;
    loadedFor = "";
    fill({});
    report(error);
  }
}

function rows(columns) {
  return columns.x.map((x, i) => ({ x, y: -columns.y[i], id: columns.id[i], source: columns.source[i], title: columns.title[i], group: columns.group[i], colour: 0 }));
}

function fill(answer) {
  points = answer.points ? rows(answer.points) : [];
  byId = new Map(points.map((point) => [point.id, point]));
  const counts = new Map();
  for (const point of points) counts.set(point.group, (counts.get(point.group) ?? 0) + 1);
  const names = [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  for (const point of points) point.colour = Math.min(names.indexOf(point.group), COLOURS);
  group = -1;
  lit = [];
  current = null;
  fit();
  legend(names, counts);
  $("map-empty").hidden = points.length > 0;
  $("map-empty").textContent = points.length ? "" : "Nothing to draw yet: the map shows every passage of the collection as a point.";
  note(answer);
  recolour();
  light(wantedHits);
}

function note({ shown = 0, total = 0, explained = [] }) {
  const share = Math.round(100 * explained.reduce((sum, part) => sum + part, 0));
  const held = share ? ` Near points are alike; the two axes hold ${share} % of the differences.` : "";
  $("map-note").textContent = shown ? `${shown < total ? `${number(shown)} of ${number(total)} passages.` : `${plural(total, "passage")}.`}${held}` : "";
  canvas.setAttribute("aria-label", `Map of the collection, ${plural(shown, "point")}`);
}

function legend(names, counts) {
  const entry = (colour, name, count) => h("button", { type: "button", "aria-pressed": "false", dataset: { colour: String(colour) }, onclick: () => pick(colour) },
    h("span", { class: `swatch g${colour}` }), h("span", {}, `${name || "(top)"}`), h("small", {}, number(count)));
  const rest = names.slice(COLOURS);
  $("legend").hidden = names.length < 2;
  $("legend").replaceChildren(...names.slice(0, COLOURS).map((name, i) => entry(i, name, counts.get(name))),
    rest.length ? entry(COLOURS, `${number(rest.length)} more`, rest.reduce((sum, name) => sum + counts.get(name), 0)) : "");
}

function pick(colour) {
  group = group === colour ? -1 : colour;
  for (const button of $("legend").children) button.setAttribute("aria-pressed", String(Number(button.dataset.colour) === group));
  redraw();
}

let wantedHits = [];

// Show where these hits are; those outside the sample are asked for by id.
export async function light(hits) {
  wantedHits = hits;
  const place = () => {
    lit = hits.map((hit, i) => ({ point: byId.get(hit.id), rank: i + 1 })).filter((one) => one.point);
    redraw();
  };
  place();
  const missing = hits.filter((hit) => !byId.has(hit.id)).map((hit) => hit.id);
  if (!missing.length || !points.length || !visible()) return;
  try {
    const answer = await call(`${of(get().c)}/map/places`, { params: { id: missing } });
    if (wantedHits !== hits) return;
    const colours = new Map(points.map((point) => [point.group, point.colour]));
    for (const point of rows(answer.points)) byId.set(point.id, { ...point, colour: colours.get(point.group) ?? COLOURS });
    place();
  } catch (error) {
    if (error.status !== 404) report(error); // 404: these passages went with a newer version
  }
}

export function recolour() {
  const style = getComputedStyle(document.documentElement);
  const probe = h("span", { class: "swatch" });
  canvas.parentElement.append(probe);
  const resolve = (name) => ((probe.style.color = `var(${name})`), getComputedStyle(probe).color);
  palette = { groups: Array.from({ length: COLOURS + 1 }, (_, i) => resolve(`--g${i}`)), accent: resolve("--accent"), on: resolve("--on-accent"), ink: resolve("--ink"), surface: resolve("--surface"), font: style.getPropertyValue("--sans") };
  probe.remove();
  redraw();
}

function scale() {
  const [w, hgt] = [canvas.clientWidth, canvas.clientHeight];
  // the axes may be stretched against each other, but not beyond recognition
  const [fx, fy] = [((w / 2 - 16) / home.width), ((hgt / 2 - 16) / home.height)];
  return { w, hgt, sx: Math.min(fx, fy * 1.6) * view.zoom, sy: Math.min(fy, fx * 1.6) * view.zoom };
}

function project(point, s) {
  return [(point.x - view.x) * s.sx + s.w / 2, (point.y - view.y) * s.sy + s.hgt / 2];
}

function redraw() {
  if (!frame) frame = requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  const ratio = devicePixelRatio || 1;
  const s = scale();
  if (!s.w || !palette.groups) return;
  if (canvas.width !== Math.round(s.w * ratio) || canvas.height !== Math.round(s.hgt * ratio)) [canvas.width, canvas.height] = [Math.round(s.w * ratio), Math.round(s.hgt * ratio)];
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, s.w, s.hgt);
  const size = Math.min(5, (points.length > 1500 ? 1.7 : points.length > 300 ? 2.3 : 3.2) * Math.sqrt(view.zoom));
  for (const point of points) {
    const [x, y] = project(point, s);
    if (x < -9 || y < -9 || x > s.w + 9 || y > s.hgt + 9) continue;
    pen.globalAlpha = group >= 0 ? (point.colour === group ? 0.9 : 0.1) : lit.length ? 0.34 : 0.72;
    disc(x, y, size, palette.groups[point.colour]);
  }
  pen.globalAlpha = 1;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pins = spread(lit.map(({ point, rank }) => {
    const [x, y] = project(point, s);
    return { point, rank, x, y, px: x, py: y, radius: rank <= 10 ? 8.5 : 4.5 };
  }));
  for (const pin of pins) if (Math.hypot(pin.x - pin.px, pin.y - pin.py) > pin.radius) leader(pin);
  for (const pin of [...pins].reverse()) {
    disc(pin.x, pin.y, pin.radius + 1.5, palette.surface);
    disc(pin.x, pin.y, pin.radius, palette.accent);
    if (pin.rank > 10) continue;
    pen.fillStyle = palette.on;
    pen.font = `600 10px ${palette.font}`;
    pen.fillText(String(pin.rank), pin.x, pin.y + 0.5);
  }
  for (const point of [byId.get(get().p), current]) if (point) ring(...spot(point, s), palette.ink);
}

// Push the numbered hits apart until each can be read; a line leads back to where it belongs.
function spread(all) {
  for (let round = 0; round < 40; round++) {
    let moving = false;
    for (let i = 0; i < all.length; i++) for (let j = i + 1; j < all.length; j++) {
      const [a, b] = [all[i], all[j]];
      const [dx, dy] = [b.x - a.x || 0.01 * (j - i), b.y - a.y || 0.013];
      const apart = Math.hypot(dx, dy);
      const push = (a.radius + b.radius + 1 - apart) / 2;
      if (push <= 0) continue;
      moving = true;
      for (const [pin, sign] of [[a, -1], [b, 1]]) (pin.x += (sign * push * dx) / apart), (pin.y += (sign * push * dy) / apart);
    }
    if (!moving) break;
  }
  return all;
}

function leader({ x, y, px, py }) {
  pen.strokeStyle = palette.accent;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(px, py);
  pen.lineTo(x, y);
  pen.stroke();
  disc(px, py, 2, palette.accent);
}

// Where a point is drawn: hits stand where they were pushed to.
function spot(point, s) {
  const pin = pins.find((one) => one.point === point);
  return pin ? [pin.x, pin.y] : project(point, s);
}

function disc(x, y, radius, colour) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

function ring(x, y, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(x, y, 11.5, 0, 2 * Math.PI);
  pen.stroke();
}

function nearest(px, py) {
  const s = scale();
  let [best, least] = [null, NEAR];
  const look = (point, [x, y]) => {
    const away = Math.hypot(x - px, y - py);
    if (away < least) [best, least] = [point, away];
  };
  for (const pin of pins) look(pin.point, [pin.x, pin.y]);
  if (!best) for (const point of points) look(point, project(point, s));
  return best;
}

function point(at, spoken = false) {
  if (at === current) return;
  current = at;
  canvas.classList.toggle("over", Boolean(at));
  const tip = $("map-tip");
  tip.hidden = !at;
  if (at) {
    tip.replaceChildren(at.title || at.source, h("small", {}, at.source));
    const s = scale();
    const [x, y] = spot(at, s);
    const left = Math.max(4, Math.min(x + 14, s.w - tip.offsetWidth - 4));
    const top = y + 18 + tip.offsetHeight > s.hgt ? y - tip.offsetHeight - 16 : y + 16;
    tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
    const rank = lit.find((one) => one.point === at)?.rank;
    if (spoken) $("map-live").textContent = `${rank ? `Hit ${rank}: ` : ""}${at.title || at.source}, ${at.source}`;
  }
  redraw();
}

// Show all but the farthest outliers, which would squeeze the rest together.
export function fit() {
  const range = (axis) => {
    const sorted = points.map((one) => one[axis]).sort((a, b) => a - b);
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    return points.length ? [at(0.003), at(0.997)] : [-1, 1];
  };
  const [[left, right], [top, bottom]] = [range("x"), range("y")];
  Object.assign(view, { x: (left + right) / 2, y: (top + bottom) / 2, zoom: 1 });
  home = { width: Math.max(right - left, 0.2) / 2, height: Math.max(bottom - top, 0.2) / 2 };
  moved();
}

function zoom(by, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) {
  const before = scale();
  const [wx, wy] = [(px - before.w / 2) / before.sx + view.x, (py - before.hgt / 2) / before.sy + view.y];
  view.zoom = Math.min(40, Math.max(0.7, view.zoom * by));
  const after = scale();
  view.x = wx - (px - after.w / 2) / after.sx;
  view.y = wy - (py - after.hgt / 2) / after.sy;
  moved();
}

function pan(dx, dy) {
  const s = scale();
  view.x = Math.min(1.2, Math.max(-1.2, view.x - dx / s.sx));
  view.y = Math.min(1.2, Math.max(-1.2, view.y - dy / s.sy));
  moved();
}

let listing = 0;
function moved() {
  point(null);
  redraw();
  clearTimeout(listing);
  listing = setTimeout(list, 150);
}

// The same points for those who do not see or point: hits first, then outwards from the middle.
function list() {
  if (!$("map-list").open) return;
  const s = scale();
  const inside = points.filter((one) => {
    const [x, y] = project(one, s);
    return x >= 0 && y >= 0 && x <= s.w && y <= s.hgt;
  });
  const away = (one) => Math.hypot(one.x - view.x, one.y - view.y);
  const hits = lit.map((one) => one.point);
  const shown = [...hits, ...inside.filter((one) => !hits.includes(one)).sort((a, b) => away(a) - away(b))].slice(0, 60);
  $("map-list").querySelector("ol").replaceChildren(...shown.map((one) => h("li", {}, h("a", { href: "#", onclick: (event) => (event.preventDefault(), open(one.id)) },
    h("span", {}, one.title || one.source), h("small", {}, one.source)))));
  $("map-list").querySelector("summary").textContent = `Points in view: ${number(inside.length)}${shown.length < inside.length ? `, the ${shown.length} nearest the middle` : ""}`;
}

function walk(dx, dy) {
  const s = scale();
  const from = current ? project(current, s) : [s.w / 2, s.hgt / 2];
  if (!current && lit.length) return point(lit[0].point, true);
  let [best, least] = [null, Infinity];
  for (const one of new Set([...points, ...lit.map((hit) => hit.point)])) {
    if (one === current) continue;
    const [x, y] = project(one, s);
    const along = (x - from[0]) * dx + (y - from[1]) * dy;
    const aside = Math.abs((x - from[0]) * dy) + Math.abs((y - from[1]) * dx);
    const cost = along + 2.5 * aside;
    if (along > 0.5 && aside <= along * 1.2 && cost < least && x >= 0 && y >= 0 && x <= s.w && y <= s.hgt) [best, least] = [one, cost];
  }
  if (best) point(best, true);
  else pan(-dx * 60, -dy * 60);
}

const KEYS = {
  ArrowLeft: () => walk(-1, 0), ArrowRight: () => walk(1, 0), ArrowUp: () => walk(0, -1), ArrowDown: () => walk(0, 1),
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: fit, Enter: () => current && open(current.id),
};
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  KEYS[event.key]();
});
canvas.addEventListener("blur", () => point(null));

const fingers = new Map();
let dragged = 0;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
  if (fingers.size === 1) dragged = 0;
});
canvas.addEventListener("pointermove", (event) => {
  const last = fingers.get(event.pointerId);
  if (!last) return point(nearest(event.offsetX, event.offsetY));
  const now = [event.offsetX, event.offsetY];
  dragged += Math.hypot(now[0] - last[0], now[1] - last[1]);
  fingers.set(event.pointerId, now);
  if (fingers.size === 2) {
    const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
    const apart = (a) => Math.max(20, Math.hypot(a[0] - other[0], a[1] - other[1]));
    zoom(apart(now) / apart(last), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  } else if (dragged > 4) {
    canvas.classList.add("drag");
    pan(now[0] - last[0], now[1] - last[1]);
  }
});
function lift(event) {
  if (!fingers.delete(event.pointerId)) return;
  canvas.classList.remove("drag");
  if (event.type !== "pointerup" || dragged > 4) return;
  const at = nearest(event.offsetX, event.offsetY);
  if (at) open(at.id);
}
canvas.addEventListener("pointerup", lift);
canvas.addEventListener("pointercancel", lift);
canvas.addEventListener("pointerleave", () => fingers.size || point(null));
canvas.addEventListener("wheel", (event) => {
  if (get().view !== "map" && !event.ctrlKey && document.activeElement !== canvas) return; // beside the hits the wheel scrolls the page
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.offsetX, event.offsetY);
}, { passive: false });
$("map-list").addEventListener("toggle", list);
document.querySelector(".zoom").addEventListener("click", (event) => {
  const kind = event.target.closest("button")?.dataset.zoom;
  if (kind === "fit") fit();
  else if (kind) zoom(kind === "in" ? 1.6 : 1 / 1.6);
});

// Where a passage is on the screen, for tests and for those who script the page.
export function placeOf(id) {
  const at = byId.get(id);
  return at ? spot(at, scale()) : null;
}
export const ids = () => points.map((one) => one.id);
