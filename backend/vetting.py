"""Candidates on their way through the sandbox: asked for by the tuner, answered by another thread.

A check takes up to minutes, and the tuner's thread must keep its lease meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from backend.domain.knobs import KnobValue
from backend.domain.records import EventRecord
from backend.protocols import Clock, Store
from backend.sandbox.outcome import SandboxResult
from backend.sandbox.sandbox import Sandbox
from backend.steering.turns import ExplorationTurns


@dataclass(frozen=True)
class Vetted:
    """A candidate, who proposed it, and what the sandbox says of it."""

    values: Mapping[str, KnobValue]
    proposer: str
    result: SandboxResult


class Vetting:
    """Checks one candidate at a time.

    Args:
        sandbox: where candidates are tried.
        turns: nothing else is tried while a check runs.
        store: is told of each result.
        clock: time.
    """

    def __init__(
        self, sandbox: Sandbox, turns: ExplorationTurns, store: Store, clock: Clock
    ) -> None:
        self._sandbox, self._turns = sandbox, turns
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._asked: tuple[Mapping[str, KnobValue], str] | None = None
        self._vetted: Vetted | None = None

    # -- the tuner's thread -----------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a candidate was handed in and its result not taken yet."""
        return self._asked is not None or self._vetted is not None

    def hand_in(self, values: Mapping[str, KnobValue], proposer: str) -> None:
        """Have a candidate checked; there is no other one."""
        with self._lock:
            self._asked = values, proposer

    def take(self) -> Vetted | None:
        """The candidate whose check is over, once; None where there is none."""
        with self._lock:
            vetted, self._vetted = self._vetted, None
            return vetted

    def drop(self) -> None:
        """What is under way is of no use any more."""
        with self._lock:
            self._asked = self._vetted = None

    @property
    def progress(self) -> str:
        """What the sandbox does now, for people; "" when nothing."""
        return self._sandbox.progress

    # -- the job's thread -------------------------------------------------------------------

    def check(self) -> None:
        """Check the candidate that was handed in, if any, while nothing is on trial."""
        asked = self._asked
        if asked is None or not self._turns.begin_work():
            return
        try:
            result = self._sandbox.check(asked[0])
        finally:
            self._turns.end_work()
        with self._lock:
            if self._asked is not asked:
                return  # dropped meanwhile
            self._asked, self._vetted = None, Vetted(*asked, result)
        told = f"{result.outcome.value}: {'; '.join(result.reasons)}"
        self._store.add_event(EventRecord(self._clock.now(), "info", "sandbox", told))

    def close(self) -> None:
        """Remove the scratch server. The last call."""
        self._sandbox.close()
