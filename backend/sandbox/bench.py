"""Runs the recorded statements under either arm, on a scratch server or on a stand-by."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import psycopg2
from psycopg2 import errors as pgerrors
from sqlalchemy.engine import URL

from backend.domain.modes import Arm
from backend.errors import ServerConnectionError
from backend.sandbox.comparison import CandidateFailedError, InterruptedCheckError, Pass
from backend.sandbox.statement_set import ChosenClass, class_name
from backend.steering.running.trial_session import TrialSession

FIRST_TIMEOUT_S = 3.0
"""A statement that takes longer on the copy is not compared."""
_SLOWER = 5.0
_SLACK_S = 0.5
"""Under the candidate a statement may take ``_SLOWER`` times as long, and ``_SLACK_S``."""
_FILLED_S = 0.02
_MOST_RUNS = 5
"""Short statements are run several times in a pass, of which the fastest counts: the scratch server
has the lowest priority, and whatever else the machine does only ever adds to a time."""
_MOST_BROKEN = 3
"""Classes with which a pass ends: the same again in the next one, and the candidate has failed."""
_COMES_BACK_S = 30.0
_POLL_S = 0.1


class Deadline:
    """When a check is over: by its time, or because it is asked to stop.

    Args:
        seconds: from now.
        stop: set by whoever wants it to end.
    """

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self._until_s, self._stop = time.monotonic() + seconds, stop

    @property
    def left_s(self) -> float:
        """Seconds left, 0 when it is over."""
        return 0.0 if self._stop.is_set() else max(self._until_s - time.monotonic(), 0.0)

    def is_over(self) -> bool:
        """Whether it is."""
        return self.left_s <= 0

    def check(self) -> None:
        """Go on, or not.

        Raises:
            InterruptedCheckError: it is over.
        """
        if self.is_over():
            why = "interrupted" if self._stop.is_set() else "out of time"
            raise InterruptedCheckError(why)


class StatementBench:
    """Runs statements, switched between the arms.

    Args:
        url: the server, and the role that runs them.
        statements: what is run; :meth:`prepare` leaves out what cannot be compared.
        session: settings of the candidate's statements.
        switch: puts an arm's configuration in force; answers whether the server was restarted.
            It raises :class:`CandidateFailedError` where it cannot.
        may_crash: whether a lost connection under the candidate is the candidate's doing.
        deadline: of the check.
    """

    def __init__(
        self,
        url: URL,
        statements: Sequence[ChosenClass],
        session: Sequence[tuple[str, str]],
        switch: Callable[[Arm], bool],
        deadline: Deadline,
        *,
        may_crash: bool,
    ) -> None:
        self._url, self._deadline, self._may_crash = url, deadline, may_crash
        self._statements, self._session, self._switch = tuple(statements), tuple(session), switch
        self._known_s: dict[tuple[str, str], float] = {}
        self._open: dict[str, TrialSession] = {}

    @property
    def statements(self) -> tuple[ChosenClass, ...]:
        """What is compared."""
        return self._statements

    @property
    def reference_s(self) -> Mapping[str, float]:
        """Class → time under the incumbent, as :meth:`prepare` found it."""
        return {
            class_name(found.key): fmean(
                self._known_s[found.key.search_path, text] for text in found.texts
            )
            for found in self._statements
        }

    def close(self) -> None:
        """End the sessions. Idempotent."""
        for session in self._open.values():
            session.close()
        self._open.clear()

    def prepare(self, pass_s: float) -> int:
        """Run every statement twice under the incumbent; keep those that end well, and soon.

        The most valuable classes come first, so it is they that are kept.

        Args:
            pass_s: seconds that a pass over them may take.

        Returns:
            How many statements failed or took too long.

        Raises:
            InterruptedCheckError: it is over, or the server is gone.
        """
        self._switch(Arm.INCUMBENT)
        kept: list[ChosenClass] = []
        dropped, spent_s = 0, 0.0
        for found in self._statements:
            texts = []
            for text in found.texts:
                if spent_s >= pass_s and kept:
                    break
                self._deadline.check()
                try:
                    times = self._times(found, text, (), FIRST_TIMEOUT_S, 2)
                except psycopg2.Error:
                    dropped += 1
                    continue
                except ServerConnectionError as error:
                    raise InterruptedCheckError(error.message) from None
                self._known_s[found.key.search_path, text] = min(times)
                spent_s += min(times) * _runs(min(times))
                texts.append(text)
            if texts:
                kept.append(ChosenClass(found.key, found.share, tuple(texts)))
        self._statements = tuple(kept)
        return dropped

    def run_pass(self, arm: Arm) -> Pass:
        """Switch to the arm and run every statement; after a restart once more, uncounted."""
        if self._switch(arm):
            self._run_all(arm)
        return self._run_all(arm)

    # -- inside -----------------------------------------------------------------------------------

    def _run_all(self, arm: Arm) -> Pass:
        times_s: dict[str, list[float]] = defaultdict(list)
        broken: dict[str, str] = {}
        for found in self._statements:
            name = class_name(found.key)
            for text in found.texts:
                self._deadline.check()
                try:
                    time_s = self._time(arm, found, text)
                except pgerrors.QueryCanceled:
                    known_s = self._known_s[found.key.search_path, text]
                    limit_s = _SLOWER * known_s + _SLACK_S
                    broken[name] = f"takes over {limit_s:.3g} s, not {known_s:.3g} s"
                except psycopg2.Error as error:
                    broken[name] = f"fails with SQLSTATE {error.pgcode}"
                else:
                    times_s[name].append(time_s)
                    continue
                break
            if len(broken) >= _MOST_BROKEN:
                break
        return Pass({name: fmean(times) for name, times in times_s.items()}, broken)

    def _time(self, arm: Arm, found: ChosenClass, text: str) -> float:
        known_s = self._known_s[found.key.search_path, text]
        settings = self._session if arm is Arm.CANDIDATE else ()
        timeout_s = _SLOWER * known_s + _SLACK_S
        for is_first in (True, False):
            try:
                return min(self._times(found, text, settings, timeout_s, _runs(known_s)))
            except ServerConnectionError as error:
                self._deadline.check()
                comes_back = self._may_crash and self._comes_back(found.key.search_path)
                if is_first and comes_back:
                    continue
                if self._may_crash and arm is Arm.CANDIDATE:
                    how = "crashed twice" if comes_back else "crashed and did not come back"
                    told = f"the server {how} under class {class_name(found.key)}"
                    raise CandidateFailedError(told) from None
                raise InterruptedCheckError(error.message) from None
        raise AssertionError("unreachable")

    def _times(
        self,
        found: ChosenClass,
        text: str,
        settings: Sequence[tuple[str, str]],
        timeout_s: float,
        runs: int,
    ) -> list[float]:
        session = self._session_under(found.key.search_path)
        limits = (("lock_timeout", "500"), ("statement_timeout", str(int(timeout_s * 1000) + 1)))
        times = []
        with session.snapshot(), session.arm((*settings, *limits)):
            for _ in range(runs):
                began_s = time.perf_counter()
                session.copy_out(text, _Nowhere(), timeout_s=timeout_s)
                times.append(time.perf_counter() - began_s)
        return times

    def _session_under(self, search_path: str) -> TrialSession:
        if search_path not in self._open:
            self._open[search_path] = TrialSession(self._url, search_path=search_path)
        return self._open[search_path]

    def _comes_back(self, search_path: str) -> bool:
        """Wait for a server that crashed: it starts again by itself."""
        until_s = time.monotonic() + _COMES_BACK_S
        while time.monotonic() < until_s:
            self._deadline.check()
            try:
                self._session_under(search_path).execute("SELECT 1")
            except ServerConnectionError:
                time.sleep(_POLL_S)
            else:
                return True
        return False


class _Nowhere(io.RawIOBase):
    """Takes an answer and keeps nothing of it."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


@contextlib.contextmanager
def opened(bench: StatementBench) -> Iterator[StatementBench]:
    """Close the bench's sessions at the end."""
    try:
        yield bench
    finally:
        bench.close()


def _runs(known_s: float) -> int:
    """How often a statement is run in a pass."""
    return max(int(min(_FILLED_S / max(known_s, 1e-6), _MOST_RUNS)), 1)
