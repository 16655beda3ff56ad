/* A page whose session is over goes to the login page and comes back to where it was. */
(function () {
  "use strict";
  var ask = window.fetch;
  window.fetch = function () {
    return ask.apply(window, arguments).then(function (answer) {
      if (answer.status === 401 && new URL(answer.url).origin === window.location.origin) {
        window.location.assign("/login?next=" + encodeURIComponent(window.location.pathname));
      }
      return answer;
    });
  };
})();
