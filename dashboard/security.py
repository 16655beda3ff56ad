"""Who may ask: Host allow-list, Origin, a token against forged requests, response headers.

Every request is checked for its Host (against DNS rebinding); every request that is not a read
is checked for its Origin and must carry its session's token, which only pages of ours can read. See
https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from flask import Flask, Request, Response, g, jsonify, render_template, request, session

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
TOKEN_HEADER = "X-CSRFToken"  # nosec B105
TOKEN_FIELD = "token"  # nosec B105
"""Where a form without scripts sends the token."""
SESSION_KEY = "key"
"""Where the signed cookie holds the session's key."""


def token_cookie(port: int) -> str:
    """The token cookie's name; cookies ignore ports, so the port is part of the name."""
    return f"autopilot_token_{port}"


def split_host(host: str) -> str | None:
    """The name in a Host header without its port, in lower case; None where it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        name, _port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or any(c in host for c in "/@\\?# \t"):
        return None
    return name.rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class RequestGuard:
    """Decides whether a request may pass.

    Args:
        bound_host: the address that the server binds.
        allowed_hosts: further names that browsers may use.
        port: only names the token's cookie.
    """

    def __init__(self, bound_host: str, allowed_hosts: Iterable[str], port: int) -> None:
        names = {*LOOPBACK_NAMES, bound_host.lower(), *(h.lower() for h in allowed_hosts)}
        self._any_address = bound_host in ("0.0.0.0", "::", "")  # nosec B104
        if self._any_address:
            names.add(socket.gethostname().lower())
        self._names = frozenset(names - {"", "0.0.0.0", "::"})  # nosec B104
        self._secret = secrets.token_bytes(32)
        self.cookie = token_cookie(port)

    def token(self, session_key: str) -> str:
        """The token of a session, the empty key's for whoever has not logged in."""
        digest = hmac.digest(self._secret, session_key.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def host_allowed(self, host: str) -> bool:
        """Whether a Host header names this machine as we know it.

        Bound to every address, bare addresses pass too: rebinding needs a name.
        """
        name = split_host(host)
        if name is None:
            return False
        return name in self._names or (self._any_address and _is_address(name))

    def refusal(self, req: Request) -> str | None:
        """Why the request is refused; None where it may pass."""
        host = req.headers.get("Host", "")
        if not self.host_allowed(host):
            return (
                f"Host {host[:100]!r} is not one of this dashboard's names; add it to "
                "dashboard.allowed_hosts if it is yours"
            )
        if req.method in SAFE_METHODS:
            return None
        return self._origin_refusal(req, host) or self._token_refusal(req)

    def _origin_refusal(self, req: Request, host: str) -> str | None:
        site = req.headers.get("Sec-Fetch-Site")
        if site is not None and site != "same-origin":
            return f"the request comes from another site (Sec-Fetch-Site: {site[:40]!r})"
        origin = req.headers.get("Origin")
        if origin is None:
            if site == "same-origin":
                return None
            return "a request that changes state must name its Origin, and this one does not"
        parts = urlsplit(origin) if origin.isascii() else None
        if (
            parts is None
            or parts.scheme not in (("https",) if req.is_secure else ("http", "https"))
            or parts.netloc.lower() != host.lower()
            or parts.path
        ):
            return f"Origin {origin[:100]!r} is not this dashboard ({host[:100]!r})"
        return None

    def _token_refusal(self, req: Request) -> str | None:
        given = req.headers.get(TOKEN_HEADER) or req.form.get(TOKEN_FIELD, "")
        if hmac.compare_digest(given.encode(), self.token(present_session()).encode()):
            return None
        return (
            f"the header {TOKEN_HEADER} does not hold this dashboard's token (the cookie "
            f"{self.cookie}, set by any page); load the page again"
        )


def wants_page() -> bool:
    """Whether the request is a person's, who wants a page, and not a script's."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def present_session() -> str:
    """The key of the session that the request's signed cookie holds; empty where there is none."""
    key = session.get(SESSION_KEY)
    return key if isinstance(key, str) else ""


def content_security_policy(script_hashes: Sequence[str]) -> str:
    """The strictest policy under which Dash, Plotly and AG Grid work.

    Plotly and AG Grid write style rules at run time, hence the inline styles; scripts are ours or
    hashed, and nothing comes from another host.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {' '.join(script_hashes)}".rstrip(),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def install(server: Flask, guard: RequestGuard, script_hashes: Callable[[], Sequence[str]]) -> None:
    """Check every request before, and set the headers after."""
    policy: list[str] = []

    @server.before_request
    def check() -> tuple[Response | str, int] | None:
        g.form_token = guard.token(present_session())
        reason = guard.refusal(request)
        if reason is None:
            return None
        if wants_page():
            return render_template("index.html", error=reason, code=403), 403
        return jsonify(status="refused", reason=reason), 403

    @server.after_request
    def set_headers(response: Response) -> Response:
        if not policy:
            policy.append(content_security_policy(script_hashes()))
        headers = response.headers
        headers["Content-Security-Policy"] = policy[0]
        headers["X-Frame-Options"] = "DENY"
        headers["X-Content-Type-Options"] = "nosniff"
        # With no-referrer a form's Origin would be null.
        headers["Referrer-Policy"] = "same-origin"
        headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        if not request.path.startswith(("/_dash-component-suites/", "/vendor/", "/assets/")):
            headers["Cache-Control"] = "no-store"
            # An open page survives a restart of this process: it learns the new token from any
            # answer, a refusal included, and only a page of this origin can read it.
            token = guard.token(present_session())
            if (
                guard.host_allowed(request.headers.get("Host", ""))
                and request.cookies.get(guard.cookie) != token
            ):
                response.set_cookie(
                    guard.cookie, token, samesite="Strict", secure=request.is_secure, path="/"
                )
        return response
