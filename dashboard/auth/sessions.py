"""Sessions of the dashboard: kept here, so that a logout ends one for good.

The browser holds a random key in a signed cookie. A restart of the dashboard ends all sessions.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dashboard.auth.identity import Identity

MOST_OF_A_USER = 50


@dataclass
class _Session:
    identity: Identity
    began_s: float
    active_s: float


class Sessions:
    """Who is logged in.

    Args:
        idle_s: seconds without activity after which a session ends.
        max_s: seconds after which it ends in any case.
        clock: monotonic seconds.
    """

    def __init__(
        self, idle_s: float, max_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._idle_s = idle_s
        self._max_s = max_s
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def begin(self, identity: Identity) -> str:
        """Begin a session and return its key.

        The user's own that rested longest gives way to it: nobody's logins end others' sessions.
        """
        key, now_s = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            own = [k for k, s in self._sessions.items() if s.identity.name == identity.name]
            if len(own) >= MOST_OF_A_USER:
                del self._sessions[own[0]]
            self._sessions[key] = _Session(identity, now_s, now_s)
        return key

    def find(self, key: object, *, active: bool) -> Identity | None:
        """Whose session it is, None where it is over.

        Args:
            key: what the cookie held.
            active: the request is a person's doing, and keeps the session from idling.
        """
        if not isinstance(key, str):
            return None
        now_s = self._clock()
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return None
            if now_s - session.active_s > self._idle_s or now_s - session.began_s > self._max_s:
                del self._sessions[key]
                return None
            if active:
                session.active_s = now_s
                self._sessions.move_to_end(key)
            return session.identity

    def end(self, key: object) -> None:
        """End a session; a key that is none is fine."""
        if isinstance(key, str):
            with self._lock:
                self._sessions.pop(key, None)
