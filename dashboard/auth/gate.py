"""Stands before every request: who asks, may it pass, and the pages to log in and out.

Two ways to say who one is: a session, begun on the login page, for browsers; HTTP basic
authentication on the routes for scripts and monitors alone, so that no browser ever sends it to a
page by itself.
"""

from __future__ import annotations

import math
import re
import secrets
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, jsonify, redirect, render_template, request, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.datastructures import Authorization
from werkzeug.wrappers import Response as AnyResponse

from backend.settings.dashboard import Role
from dashboard.auth import identity as who
from dashboard.auth.accounts import Accounts
from dashboard.auth.attempts import Attempts
from dashboard.auth.identity import HUMAN, Identity
from dashboard.auth.sessions import Sessions
from dashboard.auth.trail import Record, Trail
from dashboard.security import SAFE_METHODS, SESSION_KEY, wants_page

if TYPE_CHECKING:
    from collections.abc import Collection

    from backend.settings.dashboard import DashboardSettings

CALLBACKS = "/_dash-update-component"
OPEN = frozenset(
    {"login", "api.healthz", "vendor.style_sheet", "vendor.icon", "_dash_assets.static"}
)
"""Flask's endpoints that need no login: files for pages hold nothing of the store."""
FOR_SCRIPTS = re.compile(r"/(api/.*|metrics|healthz)")
VIEWER_MAY_POST = frozenset({CALLBACKS, "/login", "/logout"})
"""Callbacks refresh pages; commands that they would queue are refused where they are queued."""
REFRESH = "refresh"
"""What the page without scripts adds to its address when it loads itself anew."""
KNOWN_KEY = "known"
"""Where the signed cookie holds who logged in last in this browser."""
_TICK = re.compile(r"[\w-]+-tick\.n_intervals")
WRONG = "The name or the password is not right."


class _Cookies(SecureCookieSessionInterface):
    """Flask's signed session cookie, for TLS alone where the request came by TLS."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def session_cookie(port: int) -> str:
    """The session cookie's name; cookies ignore ports, so the port is part of the name."""
    return f"autopilot_session_{port}"


def is_refresh() -> bool:
    """Whether the request is a page's own clock and nobody's doing."""
    if request.path == "/plain":
        return REFRESH in request.args
    if request.path != CALLBACKS:
        return False
    body = request.get_json(silent=True)
    changed = body.get("changedPropIds") if isinstance(body, dict) else None
    return isinstance(changed, list) and all(
        isinstance(prop, str) and _TICK.fullmatch(prop) for prop in changed
    )


class Gate:
    """Knows who asks, and lets nobody else in.

    Args:
        settings: users and how long sessions last.
        pages: paths that a login may lead to.
        record: writes events of logins.

    Raises:
        ConfigError: through :class:`Accounts`.
    """

    def __init__(
        self, settings: DashboardSettings, pages: Collection[str], record: Record | None
    ) -> None:
        self.accounts = Accounts(settings)
        self.sessions = Sessions(settings.session_idle_s, settings.session_max_s)
        self.attempts = Attempts()
        self.trail = Trail(record)
        self._pages = frozenset(pages)
        self._cookie = session_cookie(settings.port)

    def install(self, server: Flask) -> None:
        """Put the gate before every request, after the checks of Host, Origin and token."""
        server.secret_key = secrets.token_bytes(32)
        server.session_interface = _Cookies()
        server.config.update(
            SESSION_COOKIE_NAME=self._cookie,
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_COOKIE_SAMESITE="Strict",
        )
        server.before_request(self.check)
        server.add_url_rule("/login", "login", self.login, methods=["GET", "POST"])
        server.add_url_rule("/logout", "logout", self.logout, methods=["POST"])

    # -- who asks ---------------------------------------------------------------------------

    def check(self) -> AnyResponse | tuple[Response, int] | None:
        """Find out who asks; refuse what that one may not do."""
        if self.accounts.open:
            who.set_current(HUMAN)
            return None
        key = session.get(SESSION_KEY)
        found = self.sessions.find(key, active=not is_refresh()) if key else None
        given = _authorization() if found is None else None
        if given is not None and FOR_SCRIPTS.fullmatch(request.path):
            answer = self._basic(given)
            if not isinstance(answer, Identity):
                return answer
            found = answer
        who.set_current(found)
        if found is None:
            return self._stranger()
        if (
            found.role is not Role.OPERATOR
            and request.method not in SAFE_METHODS
            and request.path not in VIEWER_MAY_POST
        ):
            return _refused(f"{found.name}: {who.LOOKS_ONLY}", 403)
        return None

    def _basic(self, given: Authorization) -> Identity | tuple[Response, int]:
        """Who the Authorization header names, or the refusal."""
        if given.type != "basic":
            return _challenge("send a name and password by HTTP basic authentication")
        found, wait_s = self._try(given.username or "", given.password or "")
        if wait_s:
            return _wait(jsonify(status="refused", reason=_too_often(wait_s)), wait_s)
        return found or _challenge(WRONG)

    def _stranger(self) -> AnyResponse | tuple[Response, int] | None:
        if request.endpoint in OPEN:
            return None
        if FOR_SCRIPTS.fullmatch(request.path):
            return _challenge("log in: send a name and password by HTTP basic authentication")
        if request.method == "GET" and wants_page():
            known = request.path in self._pages and request.path != "/"
            return redirect(f"/login?next={request.path}" if known else "/login", 303)
        return _refused("nobody is logged in, or the session is over: log in at /login", 401)

    def _try(self, name: str, password: str) -> tuple[Identity | None, float]:
        """Verify at the rate that is allowed: who it is, or None, and the seconds to wait."""
        address = request.remote_addr or ""
        # For that user alone: who may log in as a viewer gains no attempts at an operator.
        known = name if session.get(KNOWN_KEY) == name else None
        wait_s = self.attempts.admit(address, known)
        # The name may be a password that was typed into the wrong field.
        shown = name if self.accounts.knows(name) else "an unknown name"
        if wait_s:
            message = f"login refused: too many attempts; {shown} from {address}"
            self.trail.tell("warning", "login_limited", message, address=address)
            return None, wait_s
        found = self.accounts.verify(name, password)
        if found is None:
            message = f"login failed: {shown} from {address}"
            self.trail.tell("warning", "login_failed", message, address=address)
        else:
            self.attempts.succeeded(address, known)
        return found, 0.0

    # -- pages ------------------------------------------------------------------------------

    def login(self) -> Any:
        """The login page, and what it sends."""
        target = request.args.get("next", "/")
        target = target if target in self._pages else "/"
        sent = request.method == "POST"
        if self.accounts.open or (not sent and who.current() is not None):
            return redirect(target, 303)
        if not sent:
            return render_template("login.html", target=target)
        name = request.form.get("name", "").strip()
        found, wait_s = self._try(name, request.form.get("password", ""))
        if found is None:
            reason = _too_often(wait_s) if wait_s else WRONG
            page = render_template("login.html", target=target, reason=reason, name=name[:40])
            return _wait(Response(page), wait_s) if wait_s else (page, 401)
        self.sessions.end(session.get(SESSION_KEY))
        session.clear()
        session[SESSION_KEY], session[KNOWN_KEY] = self.sessions.begin(found), found.name
        message = f"{found.name} ({found.role.value}) logged in from {request.remote_addr}"
        self.trail.tell("info", "login", message, address=request.remote_addr)
        return redirect(target, 303)

    def logout(self) -> AnyResponse:
        """End the session, here and in the browser."""
        self.sessions.end(session.pop(SESSION_KEY, None))
        return redirect("/login", 303)


def _authorization() -> Authorization | None:
    """The Authorization header; None where there is none, or nothing can be made of it."""
    try:
        return request.authorization
    except ValueError:  # what should be base64 is not even ASCII
        return None


def _too_often(wait_s: float) -> str:
    return f"Too many attempts. Try again in {math.ceil(wait_s)} s."


def _wait(response: Response, wait_s: float) -> tuple[Response, int]:
    response.headers["Retry-After"] = str(math.ceil(wait_s))
    return response, 429


def _refused(reason: str, code: int) -> tuple[Response, int]:
    return jsonify(status="refused", reason=reason), code


def _challenge(reason: str) -> tuple[Response, int]:
    response = jsonify(status="refused", reason=reason)
    # A browser would ask by a window of its own, and then send the password for ever.
    if "Sec-Fetch-Mode" not in request.headers:
        response.headers["WWW-Authenticate"] = 'Basic realm="PostgreSQL Autopilot", charset="UTF-8"'
    return response, 401
