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
from backend.steering.client import fingerprint
from backend.steering.register import SteeringRegister
from backend.steering.samples import ClassUse, sample_of
from backend.steering_parts import Explorer, build_explorer
from backend.telemetry import open_store
from backend.workload.statements import STATEMENTS
from benchmarks.harness.server import settings_in
from benchmarks.live_steering.bench import Bench

SAMPLES_A_CLASS = 6
"""As many as the plug-in notes at first."""
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
            by_fingerprint = _supply(bench, names, explorer, register, clock)
            found = _work(explorer, register, clock, 60.0 * minutes, share, by_fingerprint, tell)
        finally:
            explorer.close()
        served = dict.fromkeys(names, "default")
        for record in register.served(Mode.AUTO):
            assert record.evidence is not None  # nothing is served without
            served[by_fingerprint[record.key.fingerprint]] = record.evidence.hint_set
        return {
            "served": served,
            "found": found,
            "probes": sum(record.probes for record in register.classes()),
            "spent_s": explorer.exploration.spent_s,
            "real_s": time.monotonic() - began_s,
        }


def _supply(
    bench: Bench,
    names: Sequence[str],
    explorer: Explorer,
    register: SteeringRegister,
    clock: PacedClock,
) -> dict[str, str]:
    """Fill the book of samples and make the classes known; fingerprint → class."""
    by_fingerprint = {}
    for name in names:
        texts = [bench.text(name, "explored", number) for number in range(SAMPLES_A_CLASS)]
        samples = [sample_of(text, SEARCH_PATH, clock.now(), "plug-in") for text in texts]
        key = samples[0].key
        assert key.fingerprint == fingerprint(STATEMENTS[name].sql.replace("%s", "$1"))
        by_fingerprint[key.fingerprint] = name
        total_s = EXECUTIONS * bench.default_s(bench.verdict(name, "explored", 0))
        use = ClassUse(key, EXECUTIONS, EXECUTIONS, total_s, clock.now())
        explorer.book.add(samples, [use])
        register.add(key, explorer.book.text(key))
    return by_fingerprint


def _work(
    explorer: Explorer,
    register: SteeringRegister,
    clock: PacedClock,
    duration_s: float,
    share: float,
    by_fingerprint: dict[str, str],
    tell: Callable[[float, str], None],
) -> list[tuple[float, str, str]]:
    """Step until the time is over, within the share; every proof with its minute."""
    began_s, learnt_s = clock.monotonic_s(), 0.0
    proven: dict[str, str] = {}
    found: list[tuple[float, str, str]] = []
    exploration = explorer.exploration
    while (passed_s := clock.monotonic_s() - began_s) < duration_s:
        worked = exploration.step()
        tell(passed_s / 60.0, exploration.activity)
        for record in register.served(Mode.AUTO):
            name, evidence = by_fingerprint[record.key.fingerprint], record.evidence
            if evidence is not None and proven.get(name) != evidence.hint_set:
                proven[name] = evidence.hint_set
                found.append((passed_s / 60.0, name, evidence.hint_set))
        if exploration.spent_s - learnt_s >= LEARN_EVERY_S:
            explorer.learner.learn()
            learnt_s = exploration.spent_s
        ahead_s = exploration.spent_s / share - (clock.monotonic_s() - began_s)
        clock.skip(max(ahead_s, 0.0 if worked else IDLE_S))
    return found
