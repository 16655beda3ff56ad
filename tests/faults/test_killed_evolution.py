"""``kill -9`` of an evolution at any moment: no result is lost, nothing is half deployed.

So many kills as ``EVOLUTION_KILLS`` says: a few by default, more in ``make faults``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from backend.domain.policies import EvolutionRecord, GenomeRecord
from backend.evolution.archive import standing_genome
from backend.evolution.genome import Genome
from backend.evolution.present import default_genome
from backend.telemetry import SqlStore, open_store
from tests.faults.killed_evolution import BEST_OPTIMISM, QUICKLY, settings_in
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("EVOLUTION_KILLS", "3"))
QUICK_S, REAL_S = 15.0, 600.0
"""At work, of an evolution with a formula for learning, and of one that really learns."""
LASTS_S = 0.6 * QUICK_S
"""Of the first, with what the formula needs to judge; some end before they are killed."""
START_S = 300.0
"""The machine may be busy, and an evolution gets what nobody else wants."""


class Evolutions:
    """Evolutions in a folder, each in a process of its own, and what they may never lose."""

    def __init__(self, folder: Path, seconds: float, *words: str) -> None:
        self.folder = folder
        self.settings = settings_in(folder, seconds)
        self._command = [
            sys.executable, "-m", "tests.faults.killed_evolution",
            str(folder), str(seconds), *words, str(os.getpid()),
        ]  # fmt: skip
        self.store: SqlStore = open_store(self.settings.store_url)
        self._accepted: Mapping[int | None, GenomeRecord] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        return self._process

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        self.kill()
        self.store.close()

    def kill_after(self, seconds: float, *, at_work: bool) -> bool:
        """Start one and kill it so long after its start, or after it has told that it works.

        Returns:
            Whether it was killed; else it had ended before.
        """
        before = len(self._told())
        process = self.start()
        if at_work:
            eventually(lambda: len(self._told()) > before, "the evolution begins", START_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        self.kill()
        self.check()
        return process.returncode == -signal.SIGKILL

    def to_its_end(self) -> EvolutionRecord:
        """Let one go on until it has an outcome."""
        assert self.start().wait(START_S) == 0
        self.check()
        record = self.store.evolution()
        assert record is not None
        assert record.ended_at is not None
        return record

    def check(self) -> int:
        """Nothing that was recorded is gone, and what stands was deployed as a whole.

        Returns:
            How many genomes are recorded.
        """
        for name in ("telemetry.db", "evolution.db"):
            assert _integrity(self.folder / name) in ("ok", "none")
        records = {record.id: record for record in self.store.genomes(limit=10_000)}
        assert {n: records.get(n) for n in self._accepted} == dict(self._accepted)
        self._accepted = records
        last = self.store.evolution()
        deployed = [record for record in records.values() if record.deployed]
        outcomes = [text for text in self._told() if "Deployed:" in text]
        assert len(outcomes) == len(deployed)
        if last is not None and last.deployed:
            assert deployed[-1].at >= last.began_at
        default = default_genome(self.settings)
        stands = Genome(deployed[-1].genes) if deployed else default
        assert standing_genome(self.store, {}, default) == stands
        return len(records)

    def _told(self) -> list[str]:
        return [e.message for e in self.store.events(limit=10_000) if e.kind == "evolution"]


def _integrity(path: Path) -> str:
    if not path.exists():
        return "none"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


@pytest.fixture
def begun() -> Iterator[list[Evolutions]]:
    """Evolutions that are ended with the test."""
    made: list[Evolutions] = []
    yield made
    for evolutions in made:
        evolutions.end()


def test_no_kill_loses_a_result_or_leaves_half_a_deployment(
    tmp_path: Path, begun: list[Evolutions]
) -> None:
    evolutions = Evolutions(tmp_path, QUICK_S, QUICKLY)
    begun.append(evolutions)
    rng = np.random.default_rng(7)
    killed = 0
    while killed < KILLS:
        # Most kills meet an evolution at work, judging included; some one that only starts.
        killed += evolutions.kill_after(float(rng.uniform(0.0, LASTS_S)), at_work=killed % 4 > 0)
    default = default_genome(evolutions.settings).values["optimism"]
    for _ in range(5):
        if evolutions.store.genomes(deployed=True):
            break
        evolutions.to_its_end()
    stands = evolutions.store.genomes(deployed=True)[-1].genes["optimism"]
    assert abs(stands - BEST_OPTIMISM) < abs(default - BEST_OPTIMISM)


def test_one_that_really_learns_goes_on_after_a_kill(
    tmp_path: Path, begun: list[Evolutions]
) -> None:
    evolutions = Evolutions(tmp_path, REAL_S)
    begun.append(evolutions)
    rng = np.random.default_rng(11)
    for number in range(KILLS // 4):
        evolutions.kill_after(float(rng.uniform(0.0, 30.0)), at_work=number % 4 < 3)
    evolutions.start()
    eventually(evolutions.store.genomes, "a genome is measured", START_S)
    evolutions.kill()
    measured = evolutions.check()
    evolutions.start()
    eventually(lambda: len(evolutions.store.genomes()) > measured, "and then another", START_S)
