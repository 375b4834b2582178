// Aspects: in what passages shall be alike, and how much each counts. Without a choice the plain vectors are compared.
import { $, h } from "./dom.js";
import { get, go } from "./state.js";

const GENERIC = "generic"; // the plain vectors, as one of the mix
const DEBOUNCE_MS = 120;

let moving = 0;
let drawnFor = "";

export const called = (name) => (name === GENERIC ? "everything" : name);
export const split = (choice) => [choice.slice(0, choice.lastIndexOf(":")), Number(choice.slice(choice.lastIndexOf(":") + 1))];
export const chosen = (state) => new Map(state.a.map(split).filter(([name, weight]) => name && weight));
export const params = (state) => [...chosen(state)].map(([name, weight]) => `${name}=${weight}`);
export const without = (state, name) => state.a.filter((choice) => split(choice)[0] !== name);

// What there is to choose depends on the collection; what is chosen depends on the address.
export function follow(state, collection) {
  const names = collection?.aspects ?? [];
  const words = state.mode === "lexical" && !state.like; // words alone are compared
  $("toggle-aspects").hidden = !names.length;
  $("toggle-aspects").disabled = words;
  if (!names.length || words) open(false);
  if (drawnFor !== names.join()) draw(names);
  drawnFor = names.join();
  const weights = chosen(state);
  for (const slider of $("aspect-rows").querySelectorAll("input")) {
    if (slider !== document.activeElement) slider.value = weights.get(slider.name) ?? 0;
    slider.nextElementSibling.textContent = (weights.get(slider.name) ?? 0).toFixed(1);
  }
  $("aspect-count").hidden = !weights.size;
  $("aspect-count").textContent = weights.size;
}

function draw(names) {
  $("aspect-rows").replaceChildren(...(names.length ? [...names, GENERIC] : []).map((name) => h("label", { class: "slider" },
    h("span", {}, called(name)),
    h("input", { type: "range", name, min: "0", max: "1", step: "0.1", value: "0", "aria-label": `Weight of ${called(name)}`, oninput: move }),
    h("output", {}, "0.0"))));
}

function move(event) {
  event.target.nextElementSibling.textContent = Number(event.target.value).toFixed(1);
  clearTimeout(moving);
  moving = setTimeout(() => {
    const a = [...$("aspect-rows").querySelectorAll("input")].filter((one) => Number(one.value)).map((one) => `${one.name}:${Number(one.value)}`);
    go({ a, n: 0 }, { replace: true });
  }, DEBOUNCE_MS);
}

export function open(wanted = $("aspects").hidden) {
  $("aspects").hidden = !wanted;
  $("toggle-aspects").setAttribute("aria-expanded", String(wanted));
  if (wanted) $("aspect-rows").querySelector("input")?.focus();
}

$("toggle-aspects").addEventListener("click", () => open());
