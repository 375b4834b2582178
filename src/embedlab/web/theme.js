// Runs before the first paint, so that a chosen theme does not flash: the one script that is no module.
document.documentElement.dataset.theme = (() => {
  try {
    return JSON.parse(localStorage.getItem("embedlab.settings") || "{}").theme || "system";
  } catch {
    return "system"; // storage is blocked or holds something else
  }
})();
