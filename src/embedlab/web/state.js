// What the page shows is a function of its address: sharing, reloading, back and forward come from that.

const EMPTY = Object.freeze({
  c: "", // collection
  q: "", // query
  mode: "hybrid",
  view: "search",
  n: 0, // results asked for; 0: as the settings say
  f: [], // choices, as "field:value"
  a: [], // aspects to compare in, as "name:weight"
  source: "", // one document only
  sql: "", // a condition typed by hand
  explain: false,
  w: "", // weight of meaning; "": as the settings say
  like: "", // passage to find others like
  p: "", // open passage
});

const MODES = ["hybrid", "dense", "lexical"];
const VIEWS = ["search", "map", "documents"];

export function parse(search) {
  const params = new URLSearchParams(search);
  const pairs = (key) => params.getAll(key).filter((choice) => choice.includes(":"));
  const state = { ...EMPTY, f: pairs("f"), a: pairs("a") };
  for (const key of ["c", "q", "source", "sql", "like", "p"]) state[key] = params.get(key) ?? "";
  if (MODES.includes(params.get("mode"))) state.mode = params.get("mode");
  if (VIEWS.includes(params.get("view"))) state.view = params.get("view");
  const n = Number(params.get("n"));
  if (Number.isInteger(n) && n > 0) state.n = n;
  const w = params.get("w") ?? "";
  if (w !== "" && Number(w) >= 0 && Number(w) <= 1) state.w = w;
  state.explain = params.get("explain") === "1";
  return state;
}

export function address(state) {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (Array.isArray(value)) value.forEach((one) => params.append(key, one));
    else if (value !== EMPTY[key]) params.set(key, value === true ? "1" : value);
  }
  const text = params.toString();
  return text ? `?${text}` : location.pathname;
}

let current = parse(location.search);
let listener = () => {};

export const get = () => current;

// Change the state and the address. `replace` keeps the history as it is; `mark` is kept with the history entry.
export function go(patch, { replace = false, mark = null } = {}) {
  const before = current;
  current = { ...current, ...patch };
  const url = address(current);
  if (replace) history.replaceState(mark ?? history.state, "", url);
  else if (url !== address(before)) history.pushState(mark, "", url);
  listener(current, before);
}

export function start(onChange) {
  listener = onChange;
  addEventListener("popstate", () => {
    const before = current;
    current = parse(location.search);
    listener(current, before, true);
  });
  listener(current, null);
}

const KEY = "embedlab.settings";
const DEFAULTS = { theme: "system", topK: 10, weight: "" };

export const settings = (() => {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) || "{}") };
  } catch {
    return { ...DEFAULTS };
  }
})();

export function keep(patch) {
  Object.assign(settings, patch);
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // without storage the settings last as long as the page
  }
}
