"""Settings from texts, for the tests of what is read, refused and never shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.config import Settings, load_settings


def loader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Load settings from a text and an environment, in an empty working directory."""
    monkeypatch.chdir(folder)

    def load_from(
        text: str | None = None, env: dict[str, str] | None = None, **more: Any
    ) -> Settings:
        path = None
        if text is not None:
            path = folder / "some.yaml"
            path.write_text(text, encoding="utf-8")
        return load_settings(path, environ=env or {}, **more)

    return load_from
