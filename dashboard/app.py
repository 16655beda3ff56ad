"""The factory of the dashboard."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dash
from dash.exceptions import DependencyException
from flask import Flask, Response, render_template, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException

from backend.errors import AutopilotError
from backend.protocols import CommandQueue, TelemetryReader
from dashboard import api, callback_bodies, callbacks, layouts, paths, security, vendor
from dashboard import format as fmt
from dashboard.auth.gate import Gate
from dashboard.auth.identity import logged_in
from dashboard.auth.trail import Record
from dashboard.format import Viewer
from dashboard.inert import inert, visible
from dashboard.live import register_page
from dashboard.pages import PAGES
from dashboard.services import (
    DEFAULT_FLOORS,
    DEFAULT_UPDATE_INTERVAL_S,
    QualityFloors,
    Services,
)
from dashboard.serving import MAX_REQUEST_BODY_BYTES, serve

if TYPE_CHECKING:
    from backend.settings.dashboard import DashboardSettings

__all__ = ["create_app", "serve"]

log = logging.getLogger(__name__)


def create_app(
    reader: TelemetryReader,
    commands: CommandQueue,
    settings: DashboardSettings,
    floors: QualityFloors = DEFAULT_FLOORS,
    update_interval_s: float | None = DEFAULT_UPDATE_INTERVAL_S,
    record: Record | None = None,
) -> dash.Dash:
    """Build the dashboard over a store.

    Args:
        reader: where everything shown comes from.
        commands: where an operator's requests go.
        settings: host, port, refresh interval in seconds, allowed Host names, users.
        floors: the sample qualities below which a window is not used.
        update_interval_s: real seconds between two updates of the policies (Level 1); None: never.
        record: writes the events of logins; None: they are logged alone.

    Returns:
        the Dash application; ``.server`` is the WSGI application.

    Raises:
        ConfigError: it could be reached from elsewhere without a login, or a password is no use.
        FileNotFoundError: the installation lacks static files, templates or Bootstrap's files.
    """
    services = Services(reader, commands, settings, floors, update_interval_s)
    guard = security.RequestGuard(settings.host, settings.allowed_hosts, settings.port)
    gate = Gate(settings, {*(page.path for page in PAGES), "/plain"}, record)
    vendor.bootstrap_folder()
    server = Flask("dashboard", static_folder=None, template_folder=str(paths.templates_folder()))
    server.json = _JSON(server)
    server.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BODY_BYTES
    server.jinja_options = {"finalize": lambda v: visible(v) if type(v) is str else v}
    app = _Pages(
        "dashboard",
        server=server,
        title="PostgreSQL Autopilot",
        update_title=None,  # type: ignore[arg-type]
        assets_folder=str(paths.static_folder()),
        assets_ignore=r"theme\.js",
        index_string=(paths.templates_folder() / "base.html").read_text("utf-8"),
        serve_locally=True,
        suppress_callback_exceptions=True,
        add_log_handler=False,
        csrf_token_name=guard.cookie,
        csrf_header_name=security.TOKEN_HEADER,
        enable_mcp=False,
        on_error=_log_callback_error,
    )
    app.layout = lambda: layouts.shell(services)
    callbacks.register(app, services)
    for page in PAGES:
        register_page(app, page, services)
    server.register_blueprint(vendor.blueprint())
    server.register_blueprint(api.blueprint(services))
    _plain_pages(server, services)
    security.install(server, guard, app.csp_hashes)
    gate.install(server)
    callback_bodies.install(server, app)
    return app


class _JSON(DefaultJSONProvider):
    """JSON of requests; what is nested too deeply is none, as what is torn."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        try:
            return super().loads(s, **kwargs)
        except RecursionError:
            raise ValueError("nested too deeply") from None


class _Pages(dash.Dash):
    """Dash, with what every callback sends made inert."""

    def callback(self, *outputs_and_inputs: Any, **options: Any) -> Callable[..., Any]:
        register = super().callback(*outputs_and_inputs, **options)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def answer(*arguments: Any, **keywords: Any) -> Any:
                return inert(function(*arguments, **keywords))

            return register(answer)

        return decorate


def _log_callback_error(error: Exception) -> None:
    log.error("a callback failed", exc_info=error)


def _plain_pages(server: Flask, services: Services) -> None:
    """``/plain``, the summary for browsers without scripts, and the error pages."""

    @server.get("/plain")
    def plain() -> str:
        viewer = Viewer()
        status = services.reader.status()
        versions = services.reader.policy_versions()
        units = {k.name: k.unit for k in services.reader.knob_statuses()}
        active = next((v for v in reversed(versions) if v.active), None)
        return render_template(
            "index.html",
            status=status,
            silent=status is not None and services.tuner_is_silent(status),
            knobs={}
            if active is None
            else {
                name: fmt.knob_value(value, units.get(name))
                for name, value in active.config.items()
            },
            trials=list(reversed(services.reader.trials(limit=20))),
            viewer=viewer,
            fmt=fmt,
            account=logged_in(),
            error=None,
        )

    @server.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response | str, int]:
        return _error(error.code or 500, error.description or error.name)

    @server.errorhandler(AutopilotError)
    def store_error(error: AutopilotError) -> tuple[Response | str, int]:
        return _error(503, str(error))

    @server.errorhandler(DependencyException)
    def no_such_script(error: DependencyException) -> tuple[Response | str, int]:
        return _error(404, "There is no such file.")

    @server.errorhandler(Exception)
    def unexpected(error: Exception) -> tuple[Response | str, int]:
        log.error("%s %r failed", request.method, request.path, exc_info=error)
        return _error(500, "The dashboard failed on this request; its log says why.")

    def _error(code: int, reason: str) -> tuple[Response | str, int]:
        for_people = request.method == "GET" and not request.path.startswith("/api/")
        if for_people and security.wants_page():
            return render_template("index.html", error=reason, code=code), code
        status = "error" if code >= 500 else "refused"
        response = server.json.response(status=status, reason=reason)
        return response, code
