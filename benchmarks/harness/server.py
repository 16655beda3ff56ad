"""The embedded server of a benchmark: its folder, its settings, its loaded demo store."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from psycopg2 import sql

from backend.config import PathSettings, Settings, load_settings
from backend.embedded_postgres import EmbeddedPostgres
from backend.servers import demo_store, embedded_server
from backend.workload.connection import connect

Say = Callable[[str], None]
"""Tells people what goes on."""
APPLICATION_NAME = "benchmark"
COPY_S = 300.0
"""Time-out of the statements that copy a database."""


@contextlib.contextmanager
def data_folder(given: Path | None, prefix: str) -> Iterator[Path]:
    """The folder that a benchmark works in, absolute.

    Args:
        given: made where it is missing, and kept; None: a temporary one, removed at the end with
            the server in it.
        prefix: of a temporary folder's name.
    """
    if given is not None:
        folder = given.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)  # the server may run under another account
        try:
            yield folder
        finally:
            EmbeddedPostgres(folder).destroy()


def settings_in(data_dir: Path, sections: Mapping[str, Any]) -> Settings:
    """The product's defaults with these sections changed; everything lies in this folder.

    Neither a settings file nor the environment counts: who runs a benchmark may have both.
    """
    paths = {**PathSettings.under(data_dir), **sections.get("paths", {})}
    return load_settings(Path(os.devnull), overrides={**sections, "paths": paths}, environ={})


def fresh_copy(server: EmbeddedPostgres, template: str, copy: str) -> None:
    """Make a database anew from another one, to which nobody may be connected."""
    names = sql.Identifier(copy), sql.Identifier(template)
    with (
        closing(
            connect(
                server.dsn("postgres"),
                application_name=APPLICATION_NAME,
                statement_timeout_s=COPY_S,
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(names[0]))
        cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(*names))
        cursor.execute("CHECKPOINT")


@contextlib.contextmanager
def shop_server(settings: Settings, say: Say) -> Iterator[EmbeddedPostgres]:
    """The running server of these settings with the demo store loaded; stopped at the end."""
    server = embedded_server(settings)
    try:
        server.ensure_started()
        store = demo_store(settings, server)
        if not store.is_loaded():
            say(f"loading the demo store at scale {settings.workload.data_scale_factor:g}")
            store.load()
        yield server
    finally:
        if server.is_running():
            server.stop()
