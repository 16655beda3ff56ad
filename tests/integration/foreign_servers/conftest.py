"""Settings for servers that the product did not make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.config import PathSettings, Settings
from tests.foreign_roles import ROLE, settings_for
from tests.foreign_server import ForeignServer

SettingsOf = Callable[..., Settings]


@pytest.fixture
def settings_of(tmp_path: Path) -> SettingsOf:
    """Settings for a server, as a role, with everything else in a folder of the test's own."""

    def made(server: ForeignServer, role: str = ROLE, **sections: Any) -> Settings:
        return settings_for(server, role, paths=PathSettings.under(tmp_path), **sections)

    return made
