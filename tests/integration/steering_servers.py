"""What the tests of steering on real servers share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg2

from backend.domain.server import HostFacts
from backend.embedded_postgres import EmbeddedPostgres

AMPLE = HostFacts(memory_bytes=64 << 30, cpu_count=16.0)


@contextlib.contextmanager
def owner(server: EmbeddedPostgres) -> Iterator[Any]:
    """A cursor of the role that owns everything, in autocommit."""
    connection = psycopg2.connect(**server.dsn().translate_connect_args(username="user"))
    try:
        connection.autocommit = True
        yield connection.cursor()
    finally:
        connection.close()
