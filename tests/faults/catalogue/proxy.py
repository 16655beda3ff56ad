"""A network between tuner and server that a test can cut or make silent."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable


class Proxy:
    """Forwards TCP connections of the loopback to a port, in a thread of its own.

    Args:
        to: tells the server's port; it may have another after a restart.

    Attributes:
        port: where it listens.
    """

    def __init__(self, to: Callable[[], int]) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._peers: dict[socket.socket, socket.socket] = {}
        self._silent = self._refusing = self._closing = False
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End all connections and take no new ones, until :meth:`heal`."""
        self._refusing = True
        self._poke()

    def silence(self) -> None:
        """Forward nothing and close nothing, as a router that lost its way, until :meth:`heal`."""
        self._silent = True
        self._poke()

    def heal(self) -> None:
        """Work again. Connections from before a silence are gone, as after a real one."""
        self._silent = self._refusing = False
        self._poke()

    def close(self) -> None:
        """End it."""
        self._closing = True
        self._poke()
        self._thread.join(10)

    # -- inside -------------------------------------------------------------------------------

    def _poke(self) -> None:
        self._wake.send(b"x")

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._woken in ready:
                    self._woken.recv(1024)
                if self._refusing:
                    self._drop_all(selector)
                if self._silent:
                    # Nothing is read: bytes wait in the kernel, nobody is told anything.
                    self._wait_for_the_end_of_silence()
                    self._drop_all(selector)
                    continue
                for source in ready:
                    if source is self._listener:
                        self._accept(selector)
                    elif isinstance(source, socket.socket) and source in self._peers:
                        self._forward(selector, source)
            self._drop_all(selector)
        for end in (self._listener, self._wake, self._woken):
            end.close()

    def _wait_for_the_end_of_silence(self) -> None:
        while self._silent and not self._closing:
            self._woken.recv(1024)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        if self._refusing:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._to()), timeout=5)
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            self._peers[one] = other
            selector.register(one, selectors.EVENT_READ)

    def _forward(self, selector: selectors.BaseSelector, source: socket.socket) -> None:
        try:
            data = source.recv(65536)
            if data:
                self._peers[source].sendall(data)
                return
        except OSError:
            pass
        self._drop(selector, source)

    def _drop(self, selector: selectors.BaseSelector, one: socket.socket) -> None:
        for end in (one, self._peers[one]):
            self._peers.pop(end, None)
            selector.unregister(end)
            with contextlib.suppress(OSError):
                end.close()

    def _drop_all(self, selector: selectors.BaseSelector) -> None:
        while self._peers:
            self._drop(selector, next(iter(self._peers)))
