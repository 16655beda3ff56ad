/* The few things that only the browser knows or must do at once. */
(function () {
  "use strict";
  var aliveAt = Date.now();
  var lastToggle = 0;
  var titles = { "/": "Overview" };
  var narrow = window.matchMedia("(max-width: 767.98px)");

  function triggered(prop) {
    var context = window.dash_clientside.callback_context;
    return context.triggered.some(function (t) { return t.prop_id === prop; });
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    autopilot: {
      viewer: function (path, clicks, _tick, held) {
        if (clicks && clicks !== lastToggle) {
          lastToggle = clicks;
          window.autopilotTheme.toggle();
        }
        if (triggered("url.pathname")) {
          var name = titles[path] || (path || "/").slice(1, 2).toUpperCase() + (path || "/").slice(2);
          document.title = (name || "Overview") + " · PostgreSQL Autopilot";
          window.scrollTo(0, 0);
        }
        var viewer = {
          zone: Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC",
          offset_min: -new Date().getTimezoneOffset(),
          theme: window.autopilotTheme.current(),
          narrow: narrow.matches
        };
        if (held && JSON.stringify(held) === JSON.stringify(viewer)) {
          return window.dash_clientside.no_update;
        }
        return viewer;
      },
      offline: function (_watch, _alive, interval) {
        if (triggered("alive.data")) { aliveAt = Date.now(); }
        return Date.now() - aliveAt < Math.max(4000, 4 * interval);
      },
      tempo: function (idle, usual, fast) { return idle ? usual : Math.min(usual, fast); },
      toggle: function (clicks, open) { return clicks ? !open : open; }
    }
  });
})();
