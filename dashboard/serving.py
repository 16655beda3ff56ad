"""Serving the pages with waitress: bounded threads, bounded connections, bounded bodies."""

from __future__ import annotations

from typing import Any

import dash
import waitress

THREADS = 8
CONNECTION_LIMIT = 200
MAX_REQUEST_BODY_BYTES = 1_000_000


def make_server(app: dash.Dash, host: str = "127.0.0.1", port: int = 8050) -> Any:
    """Bind and return a waitress server: ``run()`` serves, ``close()`` ends; port 0 picks one.

    ``effective_port`` is the port that was bound.

    Raises:
        OSError: the address cannot be bound.
    """
    return waitress.create_server(
        app.server,
        host=host,
        port=port,
        threads=THREADS,
        connection_limit=CONNECTION_LIMIT,
        max_request_body_size=MAX_REQUEST_BODY_BYTES,
        channel_timeout=30,
        ident=None,
    )


def stop(server: Any) -> None:
    """End a server whose ``run()`` is in another thread: sockets closed, workers ended."""

    def close() -> None:
        for channel in list(server.active_channels.values()):
            channel.handle_close()
        server.close()

    # Sockets belong to the thread that polls them, so that thread closes them.
    server.trigger.pull_trigger(close)
    server.task_dispatcher.shutdown()


def serve(app: dash.Dash, host: str = "127.0.0.1", port: int = 8050) -> None:
    """Serve until the process is told to end (KeyboardInterrupt or SystemExit end it well)."""
    server = make_server(app, host, port)
    try:
        server.run()
    finally:
        server.close()
