"""Serving the pages with waitress: bounded threads, bounded connections, bounded bodies."""

from __future__ import annotations

import contextlib
from typing import Any

import dash
import waitress

THREADS = 8
CONNECTION_LIMIT = 200
MAX_REQUEST_BODY_BYTES = 1_000_000


def make_server(
    app: dash.Dash, host: str = "127.0.0.1", port: int = 8050, trusted_proxy: str | None = None
) -> Any:
    """Bind and return a waitress server: ``run()`` serves, ``close()`` ends; port 0 picks one.

    ``effective_port`` is the port that was bound. Of a ``trusted_proxy`` the client's address and
    the scheme are believed, of anybody else such headers are dropped.

    Raises:
        OSError: the address cannot be bound.
    """
    proxy = (
        {}
        if trusted_proxy is None
        else {
            "trusted_proxy": trusted_proxy,
            "trusted_proxy_count": 1,
            "trusted_proxy_headers": {"x-forwarded-for", "x-forwarded-proto"},
        }
    )
    return waitress.create_server(
        app.server,
        host=host,
        port=port,
        threads=THREADS,
        connection_limit=CONNECTION_LIMIT,
        max_request_body_size=MAX_REQUEST_BODY_BYTES,
        channel_timeout=30,
        ident=None,
        clear_untrusted_proxy_headers=True,
        **proxy,
    )


def stop(server: Any) -> None:
    """End a server whose ``run()`` is in another thread: sockets closed, workers ended."""

    def close() -> None:
        for channel in list(server.active_channels.values()):
            channel.handle_close()
        server.close()

    # Sockets belong to the thread that polls them, so that thread closes them.
    with contextlib.suppress(OSError):  # it has ended already
        server.trigger.pull_trigger(close)
    server.task_dispatcher.shutdown()


def serve(
    app: dash.Dash, host: str = "127.0.0.1", port: int = 8050, trusted_proxy: str | None = None
) -> None:
    """Serve until the process is told to end (KeyboardInterrupt or SystemExit end it well)."""
    server = make_server(app, host, port, trusted_proxy)
    try:
        server.run()
    finally:
        server.close()
