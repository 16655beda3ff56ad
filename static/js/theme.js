/* Runs before the first paint, so that the page never flashes in the wrong theme. */
(function () {
  "use strict";
  var KEY = "autopilot-theme";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try { return window.localStorage.getItem(KEY); } catch (_) { return null; }
  }
  function current() {
    var choice = stored();
    return choice === "dark" || choice === "light" ? choice : dark.matches ? "dark" : "light";
  }
  function show() {
    var theme = current();
    document.documentElement.setAttribute("data-bs-theme", theme);
    document.documentElement.setAttribute("data-ag-theme-mode", theme);
  }
  window.autopilotTheme = {
    current: current,
    toggle: function () {
      try { window.localStorage.setItem(KEY, current() === "dark" ? "light" : "dark"); } catch (_) { /* not kept */ }
      show();
    }
  };
  dark.addEventListener("change", show);
  show();
})();
