"""The product's explorer, live: its share of so many minutes, from nothing.

It is put together as the tuner does it, and given what the plug-in would bring: a few statements of
each class with their literals, and how often and for how long each class runs. Nothing else is at
work, so the time in which the explorer must rest is skipped, not waited for: its clock is put
forward. Its statements, its EXPLAINs and its thinking take the time that they take.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from backend.config import Settings
from backend.domain.clock import SystemClock
from backend.domain.modes import Mode
from backend.domain.server import ServerInfo
from backend.domain.steering import ClassKey
from backend.steering.client import fingerprint
from backend.steering.client.sampling import CLASS_BURST, CLASS_REFILL, REFILL_INTERVAL_S
from backend.steering.register import SteeringRegister
from backend.steering.statements.samples import ClassUse, sample_of
from backend.steering_parts import Explorer, build_explorer
from backend.telemetry import open_store
from backend.workload.statements import STATEMENTS
from benchmarks.harness.server import settings_in
from benchmarks.live_steering.bench import Bench

SEARCH_PATH = '"$user", public'
EXECUTIONS = 100
LEARN_EVERY_S = 6.0
"""Seconds of statements on trial, about a turn of the explorer, after which its agent learns."""
IDLE_S = 1.0


class PacedClock(SystemClock):
    """The machine's clock, which can be put forward."""

    def __init__(self) -> None:
        self._skipped_s = 0.0

    def monotonic_s(self) -> float:
        """See ``protocols.Clock``."""
        return time.monotonic() + self._skipped_s

    def now(self) -> datetime:
        """See ``protocols.Clock``."""
        return datetime.now(timezone.utc) + timedelta(seconds=self._skipped_s)

    def skip(self, seconds: float) -> None:
        """Put the clock forward."""
        self._skipped_s += seconds


def explore(
    bench: Bench,
    names: Sequence[str],
    minutes: float,
    share: float,
    settings: Settings,
    info: ServerInfo,
    folder: Path,
    tell: Callable[[float, str], None],
) -> dict[str, Any]:
    """Let the explorer work; what it serves at the end.

    Args:
        bench: draws the statements.
        names: the classes.
        minutes: of the explorer's clock.
        share: of them that it may use.
        settings: of the server.
        info: the server.
        folder: for what the explorer keeps; emptied first.
        tell: is given the minutes so far, and what is being done.

    Returns:
        ``served``: class → hint set; ``found``: minute, class and hint set of each proof;
        ``probes``, ``spent_s`` of the server's time, ``real_s`` that it all took.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = settings_in(
        settings.paths.data_dir,
        {
            "workload": settings.workload.model_dump(),
            "steering": settings.steering.model_copy(update={"share": share}).model_dump(),
            "paths": {
                "steering_dir": str(folder),
                "policies_dir": str(folder),
                "telemetry_db": str(folder / "store.db"),
            },
        },
    )
    clock, began_s = PacedClock(), time.monotonic()
    with closing(open_store(f"sqlite:///{folder / 'store.db'}")) as store:
        register = SteeringRegister(store, clock)
        explorer = build_explorer(own, info, store, register, clock)
        try:
            supply = Supply(bench, names, explorer, register, clock)
            found = _work(explorer, register, clock, 60.0 * minutes, share, supply, tell)
        finally:
            explorer.close()
        served = dict.fromkeys(names, "default")
        for record in register.served(Mode.AUTO):
            assert record.evidence is not None  # nothing is served without
            served[supply.names[record.key]] = record.evidence.hint_set
        return {
            "served": served,
            "found": found,
            "probes": sum(record.probes for record in register.classes()),
            "spent_s": explorer.exploration.spent_s,
            "real_s": time.monotonic() - began_s,
        }


class Supply:
    """Brings statements as the plug-in would, a few at first and a few more later.

    Attributes:
        names: the classes by their keys, known to the register and in use from the beginning.
    """

    def __init__(
        self,
        bench: Bench,
        names: Sequence[str],
        explorer: Explorer,
        register: SteeringRegister,
        clock: PacedClock,
    ) -> None:
        self._bench, self._book, self._clock = bench, explorer.book, clock
        self._brought = 0
        self._due_s = clock.monotonic_s()
        self.names: dict[ClassKey, str] = {}
        for name in names:
            sql = STATEMENTS[name].sql.replace("%s", "$1")
            self.names[ClassKey(fingerprint(sql), SEARCH_PATH)] = name
        self.bring()
        for key, name in self.names.items():
            total_s = EXECUTIONS * bench.default_s(bench.verdict(name, "explored", 0))
            use = ClassUse(key, EXECUTIONS, EXECUTIONS, total_s, clock.now())
            self._book.add(uses=[use])
            register.add(key, self._book.text(key))

    def bring(self) -> None:
        """Bring what is due."""
        if self._clock.monotonic_s() < self._due_s:
            return
        self._due_s += REFILL_INTERVAL_S
        more = CLASS_REFILL if self._brought else CLASS_BURST
        numbers = range(self._brought, self._brought + more)
        self._brought = numbers.stop
        for name in self.names.values():
            texts = [self._bench.text(name, "explored", number) for number in numbers]
            now = self._clock.now()
            self._book.add([sample_of(text, SEARCH_PATH, now, "plug-in") for text in texts])


def _work(
    explorer: Explorer,
    register: SteeringRegister,
    clock: PacedClock,
    duration_s: float,
    share: float,
    supply: Supply,
    tell: Callable[[float, str], None],
) -> list[tuple[float, str, str]]:
    """Step until the time is over, within the share; every proof with its minute."""
    began_s, learnt_s = clock.monotonic_s(), 0.0
    proven: dict[ClassKey, str] = {}
    found: list[tuple[float, str, str]] = []
    exploration = explorer.exploration
    while (passed_s := clock.monotonic_s() - began_s) < duration_s:
        supply.bring()
        worked = exploration.step()
        tell(passed_s / 60.0, exploration.activity)
        for record in register.served(Mode.AUTO):
            if record.evidence and proven.get(record.key) != record.evidence.hint_set:
                proven[record.key] = record.evidence.hint_set
                found.append((passed_s / 60.0, supply.names[record.key], record.evidence.hint_set))
        if exploration.spent_s - learnt_s >= LEARN_EVERY_S:
            explorer.learner.learn()
            learnt_s = exploration.spent_s
        ahead_s = exploration.spent_s / share - (clock.monotonic_s() - began_s)
        clock.skip(max(ahead_s, 0.0 if worked else IDLE_S))
    return found
