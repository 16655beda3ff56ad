"""Bootstrap's style sheet and icons, served from the installed package Bootstrap-Flask.

Nothing is fetched from elsewhere and no file of others lies in this repository.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path

from flask import Blueprint, Response, abort, send_from_directory

YEAR_S = 31_536_000
_SYMBOL = re.compile(
    r'<symbol[^>]*?viewBox="(?P<box>[-0-9. ]+)"[^>]*?id="(?P<id>[a-z0-9-]+)"[^>]*>'
    r"(?P<body>.*?)</symbol>",
    re.S,
)


@lru_cache(maxsize=1)
def bootstrap_folder() -> Path:
    """The folder with Bootstrap 5's files inside the installed package.

    Raises:
        FileNotFoundError: Bootstrap-Flask is not installed.
    """
    spec = importlib.util.find_spec("flask_bootstrap")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "Bootstrap-Flask, which ships Bootstrap's style sheet and icons, is not installed"
        )
    return Path(spec.origin).parent / "static" / "bootstrap5"


@lru_cache(maxsize=1)
def _icons() -> dict[str, str]:
    sprite = (bootstrap_folder() / "icons" / "bootstrap-icons.svg").read_text("utf-8")
    return {
        m["id"]: f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{m["box"]}" '
        f'fill="currentColor">{m["body"]}</svg>'
        for m in _SYMBOL.finditer(sprite)
    }


def icon_svg(name: str) -> str | None:
    """One icon of the sprite as a picture of its own; None where there is none."""
    return _icons().get(name)


def blueprint() -> Blueprint:
    """Routes ``/vendor/bootstrap.min.css`` and ``/vendor/icons/<name>.svg``."""
    routes = Blueprint("vendor", __name__, url_prefix="/vendor")

    @routes.get("/bootstrap.min.css")
    def style_sheet() -> Response:
        return send_from_directory(bootstrap_folder() / "css", "bootstrap.min.css", max_age=YEAR_S)

    @routes.get("/icons/<name>.svg")
    def icon(name: str) -> Response:
        svg = icon_svg(name)
        if svg is None:
            abort(404)
        response = Response(svg, mimetype="image/svg+xml")
        response.cache_control.max_age = YEAR_S
        return response

    return routes
