// Looked up by the tests with page.evaluate: what a person cannot use or read, as lists that ought to be empty.
({
  // Controls and regions without an accessible name.
  nameless() {
    const kinds = "a[href], button, input, select, summary, canvas, dialog[open], [tabindex='0'], [role=group], nav, section";
    const labels = (node) => [...(node.labels || [])].map((label) => label.textContent).join("");
    const referred = (node) =>
      (node.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent || "").join("");
    return [...document.querySelectorAll(kinds)]
      .filter((node) => node.checkVisibility() && !node.closest("[hidden]"))
      .filter((node) => !(node.getAttribute("aria-label") || referred(node) || labels(node) || node.textContent).trim())
      .map((node) => node.outerHTML.slice(0, 120));
  },

  // Text below the contrast of WCAG 2.2 AA.
  faint() {
    const channels = (text) => {
      const found = text.match(/[\d.]+/g).map(Number);
      const scale = text.startsWith("color(srgb") ? 255 : 1;
      return [...found.slice(0, 3).map((value) => value * scale), found[3] ?? 1];
    };
    const linear = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const over = (top, under) => under.map((value, i) => top[i] * top[3] + value * (1 - top[3]));
    const ground = (node) => {
      const stack = [];
      for (let at = node; at; at = at.parentElement) stack.push(channels(getComputedStyle(at).backgroundColor));
      return stack.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
      const node = text.parentElement;
      const seen = node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
      if (!text.data.trim() || !seen || node.closest(".sr, .skip, :disabled")) continue;
      const style = getComputedStyle(node);
      const [a, b] = [light(over(channels(style.color), ground(node))), light(ground(node))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const px = parseFloat(style.fontSize);
      const large = px >= 24 || (px >= 18.66 && style.fontWeight >= 700);
      if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${node.tagName} ${text.data.trim().slice(0, 30)}`);
    }
    return found;
  },

  // What sticks out of the window sideways.
  outside() {
    const wide = document.documentElement.scrollWidth > innerWidth ? ["the page scrolls sideways"] : [];
    return wide.concat(
      [...document.querySelectorAll("button, input, select, a[href], h1, h2, h3, p, td, canvas")]
        .filter((node) => node.checkVisibility() && !node.closest(".sr, .skip"))
        .filter((node) => node.getBoundingClientRect().right > innerWidth + 1 || node.getBoundingClientRect().left < -1)
        .map((node) => node.outerHTML.slice(0, 100)),
    );
  },

  // The name of what has the focus, and whether one can see that it does.
  focus() {
    const node = document.activeElement;
    const drawn = (at, part) => {
      const style = getComputedStyle(at, part);
      return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    };
    const label = [...(node.labels || [])].some((one) => [...one.children].some((child) => drawn(child)));
    const line = node.id === "query"; // its line takes the accent colour
    return [node.id || node.dataset.goto || node.name || node.className || node.dataset.id, drawn(node) || drawn(node, "::after") || label || line];
  },
});
