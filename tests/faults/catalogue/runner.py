"""Does the faults of the catalogue, remembers what was done, and makes the table."""

from __future__ import annotations

import contextlib
import json
import statistics
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.results_file import ResultsFile
from tests.faults.catalogue.fault import Fault, Skipped
from tests.faults.catalogue.world import World
from tests.running_product import open_folder

PROMISE_S = 10.0
"""Where a process is left to do it, the last good configuration stands again within this time."""
_BLOCKS = 10
"""The repeats are done in so many rounds, so that a run that is ended early has some of each."""


@dataclass(frozen=True)
class Repeat:
    """One fault, done once.

    Attributes:
        fault: its key.
        number: of the repeat, from 0.
        survived: whether the invariant held in the end; None where it could not be done here.
        restored_s: seconds until it held; None where nothing was off.
        why: it was not survived, or not done.
    """

    fault: str
    number: int
    survived: bool | None
    restored_s: float | None = None
    why: str = ""

    @property
    def key(self) -> str:
        """The same for the same repeat."""
        return f"{self.fault}#{self.number}"

    @property
    def cell(self) -> Repeat:
        """What it was of."""
        return self

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def results_in(path: Path) -> ResultsFile[Repeat]:
    """The repeats that were done, in a file of JSON lines."""
    return ResultsFile(path, lambda line: Repeat(**json.loads(line)))


class Worlds:
    """One world after the other: where a fault was not survived, the next one gets a new one."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._world: World | None = None

    def do(self, fault: Fault, number: int) -> Repeat:
        """Do a fault once."""
        try:
            restored_s = fault.attempt(self._get(), number)
        except Skipped as reason:
            return Repeat(fault.key, number, None, why=str(reason))
        except Exception:  # whatever it was: it was not survived
            self.close()
            return Repeat(fault.key, number, False, why=traceback.format_exc())
        return Repeat(fault.key, number, True, restored_s)

    def close(self) -> None:
        """End the present one. Idempotent."""
        self._world = None
        self._stack.close()

    def _get(self) -> World:
        if self._world is None:
            world = World(self._stack.enter_context(open_folder()))
            self._stack.callback(world.close)
            self._world = world.open()
        return self._world


def plan(faults: Sequence[Fault], share: float) -> Iterator[tuple[Fault, int]]:
    """All repeats, a tenth of each fault's after the other.

    Args:
        faults: to do.
        share: of their repeats, at least one.
    """
    wanted = {fault.key: max(1, round(fault.repeats * share)) for fault in faults}
    for block in range(_BLOCKS):
        for fault in faults:
            count = wanted[fault.key]
            for number in range(block * count // _BLOCKS, (block + 1) * count // _BLOCKS):
                yield fault, number


def run(
    faults: Sequence[Fault],
    done: ResultsFile[Repeat],
    *,
    share: float,
    go_on: Callable[[Fault, int], bool],
) -> None:
    """Do what is not done yet.

    Args:
        faults: to do.
        done: remembers it; what was survived there is not done again.
        share: of the repeats.
        go_on: told what comes next; False ends it.
    """
    before = {key for key, repeat in done.read().items() if repeat.survived}
    worlds = Worlds()
    try:
        for fault, number in plan(faults, share):
            if not go_on(fault, number):
                return
            if f"{fault.key}#{number}" not in before:
                done.append(worlds.do(fault, number))
    finally:
        worlds.close()


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        item, fault: which fault.
        repeats, survived: how often it was done, and how often the invariant held afterwards.
        measured: repeats in which something had to be restored.
        restored_p50_s, restored_max_s: seconds until it stood again; None where there was nothing.
        why: what was not survived, or why it was not done.
    """

    item: int
    fault: str
    repeats: int
    survived: int
    measured: int
    restored_p50_s: float | None
    restored_max_s: float | None
    why: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether what is promised was kept."""
        return self.survived == self.repeats and (self.restored_max_s or 0.0) <= PROMISE_S


def table(faults: Sequence[Fault], repeats: Sequence[Repeat]) -> list[Row]:
    """The table of what was done."""
    rows = []
    for fault in sorted(faults, key=lambda fault: fault.item):
        own = [repeat for repeat in repeats if repeat.fault == fault.key]
        done = [repeat for repeat in own if repeat.survived is not None]
        took_s = [repeat.restored_s for repeat in done if repeat.restored_s is not None]
        rows.append(
            Row(
                fault.item,
                fault.name,
                len(done),
                sum(bool(repeat.survived) for repeat in done),
                len(took_s),
                statistics.median(took_s) if took_s else None,
                max(took_s, default=None),
                tuple(sorted({repeat.why for repeat in own if repeat.why})),
            )
        )
    return rows
