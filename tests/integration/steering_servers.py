"""What the tests of steering on real servers share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg2
from sqlalchemy.engine import URL

from backend.domain.server import HostFacts
from tests.foreign_server import AnyServer

AMPLE = HostFacts(memory_bytes=64 << 30, cpu_count=16.0)


@contextlib.contextmanager
def session(url: URL) -> Iterator[Any]:
    """A cursor in autocommit."""
    connection = psycopg2.connect(**url.translate_connect_args(username="user"))
    try:
        connection.autocommit = True
        yield connection.cursor()
    finally:
        connection.close()


def owner(server: AnyServer) -> contextlib.AbstractContextManager[Any]:
    """A cursor of the role that owns everything, in autocommit."""
    return session(server.dsn())
