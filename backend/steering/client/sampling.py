"""Notes a few statements of each class as they were sent, with their literals.

Off unless the application asks for it: what is noted may be data of people. It goes to the
application's spool file or function and nowhere else, least of all to a log.

In a statement's way stand two look-ups, two readings of a clock and two additions; no lock: what
two threads lose to each other is a count or two. The text is the one that psycopg2 has sent and
keeps (``cursor.query``), so nothing is put together for it; it is read in the plug-in's thread.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .messages import TAG
from .statements import MAX_TEXT_LENGTH, NotNow, StatementReader, functions_called

CLASS_BURST = 6
"""Samples of a class that was not known before; then `CLASS_REFILL` every `REFILL_INTERVAL_S`."""
CLASS_REFILL = 2
REFILL_INTERVAL_S = 600.0
ALL_PER_MINUTE = 100
MAX_CLASSES = 2000
"""Known at a time; those that were not executed for `REFILL_INTERVAL_S` are forgotten."""

_SEARCH_PATH = "query_steering.search_path"
"""In the pool's record of a connection: what the server answered when it was opened."""

logger = logging.getLogger(__package__)


@dataclass(frozen=True)
class SampledStatement:
    """One statement as the server got it.

    Args:
        text: with literals; may hold data of people.
        seen_at_s: Unix time.
    """

    text: str = field(repr=False)
    seen_at_s: float


@dataclass(frozen=True)
class SampledClass:
    """What one class of statements did since the last report.

    Args:
        fingerprint: of its statements (`statements.fingerprint`).
        search_path: under which they ran, as ``SHOW search_path`` prints it.
        executions: those that ended well, steered or not.
        total_s: their times together, as in `ClassTimings`.
        samples: some of them; mostly none.
    """

    fingerprint: str
    search_path: str
    executions: int
    total_s: float
    samples: tuple[SampledStatement, ...] = ()


SampleReporter = Callable[[Sequence[SampledClass]], None]


class SeenClass:
    """A class that was met: its counts since the last report, and how many samples may follow."""

    __slots__ = (
        "executions",
        "fingerprint",
        "left",
        "refilled_s",
        "search_path",
        "total_s",
        "used_s",
    )

    def __init__(self, fingerprint: str, now_s: float) -> None:
        self.fingerprint = fingerprint
        self.search_path: str | None = None
        self.executions = 0
        self.total_s = 0.0
        self.left = CLASS_BURST
        self.refilled_s = self.used_s = now_s


_Noted = tuple[SeenClass, bytes, str, str, float]
"""A class, what was sent, its encoding, the search path, and the Unix time."""


class Sampler:
    """Notes executions of one engine's plain queries.

    Args:
        reader: reads the statements' texts.
        search_path: that of all sessions; None: each session is asked once, when it is opened.
    """

    def __init__(self, reader: StatementReader, search_path: str | None) -> None:
        self._reader = reader
        self._search_path = search_path
        self._classes: dict[str, SeenClass] = {}
        self._waiting: deque[_Noted] = deque(maxlen=ALL_PER_MINUTE)
        self._left = ALL_PER_MINUTE
        self._minute_s = time.monotonic()
        self._told = False

    # -- in a statement's way ----------------------------------------------------------------------

    def execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        """Execute a statement as it came, if it may be a plain query, and note it.

        Returns:
            whether it was executed.
        """
        seen = self._meet(cursor, statement)
        if seen is None:
            return False
        begun_s = time.perf_counter()
        context.dialect.do_execute(cursor, statement, parameters, context)
        self._note(seen, cursor, context, time.perf_counter() - begun_s, 0)
        return True

    def note(
        self, cursor: Any, statement: str, context: Any, seconds: float, prefix_bytes: int
    ) -> None:
        """Note a statement that was executed, if it may be a plain query; never raises.

        Args:
            cursor: which executed it.
            statement: as it came.
            context: SQLAlchemy's.
            seconds: that it took.
            prefix_bytes: of what was sent in front of it.
        """
        seen = self._meet(cursor, statement)
        if seen is not None:
            self._note(seen, cursor, context, seconds, prefix_bytes)

    def _meet(self, cursor: Any, statement: str) -> SeenClass | None:
        if cursor.name is not None:
            return None  # with a cursor on the server, executing returns before anything has run
        try:
            fingerprint = self._reader.fingerprint(statement)
        except NotNow:
            return None
        if fingerprint is None:
            return None
        seen = self._classes.get(fingerprint)
        if seen is None and len(self._classes) < MAX_CLASSES:
            seen = self._classes.setdefault(fingerprint, SeenClass(fingerprint, time.monotonic()))
        return seen

    def _note(
        self, seen: SeenClass, cursor: Any, context: Any, seconds: float, prefix_bytes: int
    ) -> None:
        seen.executions += 1
        seen.total_s += seconds
        if seen.left <= 0 or self._left <= 0:
            return
        try:
            search_path = self._search_path
            if search_path is None:
                search_path = context.root_connection.info.get(_SEARCH_PATH)
            sent = cursor.query
            if search_path is None or len(sent) - prefix_bytes > MAX_TEXT_LENGTH:
                return
            seen.left -= 1
            self._left -= 1
            encoding = "utf-8" if cursor.connection.encoding == "UTF8" else "ascii"
            self._waiting.append((seen, sent[prefix_bytes:], encoding, search_path, time.time()))
        except NotImplementedError:
            pass  # SQLAlchemy's own questions to an engine's first session, which has no record
        except Exception as error:
            self._tell_once(error)

    def ask_search_path(self, session: Any, record: Any) -> None:
        """Ask a new session for its search path, if nobody said it; never raises."""
        if self._search_path is not None:
            return
        try:
            with session.cursor() as cursor:
                cursor.execute(f"SHOW {TAG} search_path")
                record.info[_SEARCH_PATH] = str(cursor.fetchone()[0])
        except Exception as error:
            self._tell_once(error)
        try:
            session.rollback()  # outside autocommit mode, asking has begun a transaction
        except Exception as error:
            self._tell_once(error)

    # -- in the plug-in's thread -------------------------------------------------------------------

    def take(self) -> list[SampledClass]:
        """What was noted since the last call; makes room for new samples where it is time."""
        now_s = time.monotonic()
        if now_s - self._minute_s >= 60:
            self._minute_s, self._left = now_s, ALL_PER_MINUTE
        samples = self._samples()
        found = []
        for seen in list(self._classes.values()):
            executions, seen.executions = seen.executions, 0
            total_s, seen.total_s = seen.total_s, 0.0
            if executions:
                seen.used_s = now_s
            if executions and seen.search_path is not None:
                key = (seen.fingerprint, seen.search_path)
                found.append(SampledClass(*key, executions, total_s, samples.pop(key, ())))
            if now_s - seen.refilled_s >= REFILL_INTERVAL_S:
                seen.refilled_s = now_s
                seen.left = max(seen.left, CLASS_REFILL)
                if now_s - seen.used_s >= REFILL_INTERVAL_S:
                    self._classes.pop(seen.fingerprint, None)
        # Of sessions with other search paths: their executions are counted above.
        found.extend(SampledClass(*key, 0, 0.0, noted) for key, noted in samples.items())
        return found

    def _samples(self) -> dict[tuple[str, str], tuple[SampledStatement, ...]]:
        """The different plain queries among what waits, by fingerprint and search path."""
        found: dict[tuple[str, str], dict[str, SampledStatement]] = {}
        for seen, sent, encoding, search_path, seen_at_s in self._drained():
            try:
                text = sent.decode(encoding)
                is_plain = functions_called(text) is not None
            except Exception:  # nosec B112
                # What the parser, its nesting or the encoding does not bear is not ours to judge.
                continue
            if is_plain:
                seen.search_path = search_path
                key = (seen.fingerprint, search_path)
                found.setdefault(key, {})[text] = SampledStatement(text, seen_at_s)
        return {key: tuple(texts.values()) for key, texts in found.items()}

    def _drained(self) -> Iterator[_Noted]:
        with contextlib.suppress(IndexError):  # it is empty, or another thread takes too
            while True:
                yield self._waiting.popleft()

    def _tell_once(self, error: Exception) -> None:
        # Its kind alone: an error's words may hold what the statement holds.
        if not self._told:
            self._told = True
            logger.warning(
                "statements are not sampled, or not all: %s; more of this is not told",
                type(error).__name__,
            )
