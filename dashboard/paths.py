"""Where the static files and templates lie: beside the package, or inside it once installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f"the folder {name!r} is neither in {_PACKAGE} (installed) nor in {_PACKAGE.parent} "
        "(source tree): the installation is incomplete"
    )


def static_folder() -> Path:
    """The folder of our style sheets and scripts (Dash's assets)."""
    return _folder("static")


def templates_folder() -> Path:
    """The folder of ``base.html`` and ``index.html``."""
    return _folder("templates")
