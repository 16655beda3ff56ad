"""A genome for the arm with Level 2: evolved by ``run.py evolve``'s own code, on other seeds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from sqlalchemy.engine import URL

from backend.commands.evolve import evolve
from backend.config import Settings
from backend.domain.policies import GenomeRecord
from backend.evolution.archive import MOST
from backend.telemetry import open_store
from benchmarks.levels.demonstration import Demonstration, demonstration_settings
from benchmarks.levels.processes import in_own_process, memory_folder

TRAINING_SEEDS, TRAINING_DAYS = (1001, 1002), 14.0
"""Of the demonstrations that the evolution learns from; arms are compared on none of them."""
STORE = "telemetry.db"


def evolved(folder: Path, minutes: float, console: Console) -> Path:
    """The store of an evolution that learnt from demonstrations of other seeds.

    What the folder holds already is not made again; an evolution that was killed goes on.

    Args:
        folder: is kept: the recorded stores, the study and the evolution's store.
        minutes: of the evolution.
        console: for what is being done.
    """
    store = Path(_settings(folder).paths.data_dir) / STORE
    if _ended(store):
        return store
    recorded = [str(_recorded(folder, seed, console)) for seed in TRAINING_SEEDS]
    in_own_process(_evolve, folder, minutes, recorded)
    return store


def _evolve(folder: Path, minutes: float, recorded: Sequence[str]) -> None:
    evolve(_settings(folder), Console(), minutes=minutes, stores=recorded)


def _settings(folder: Path) -> Settings:
    return demonstration_settings(folder, seed=0)


def _recorded(folder: Path, seed: int, console: Console) -> Path:
    """The store of one demonstration with Levels 0 and 1."""
    kept = folder / f"recorded-{seed}.db"
    if not kept.exists():
        console.print(f"recording a demonstration of {TRAINING_DAYS:g} days, seed {seed}")
        folder.mkdir(parents=True, exist_ok=True)
        in_own_process(_record, seed, kept)
    return kept


def _record(seed: int, kept: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="levels-", dir=memory_folder()) as name:
        demonstration = Demonstration(Path(name), seed, TRAINING_DAYS)
        try:
            demonstration.run()
        finally:
            demonstration.end()
        part = kept.with_suffix(".part")
        shutil.copy(Path(name) / STORE, part)
        part.replace(kept)


def chosen(store: Path) -> tuple[GenomeRecord | None, str]:
    """The genome to judge, and how it was chosen, for people.

    The newest deployed one; where the evolution has deployed none, the challenger that it compared
    with the default genome last, else the fastest that it measured. None where it found none that
    is faster in training than the default.
    """
    records = _records(store)
    for wanted, told in (
        ([r for r in records if r.deployed], "deployed by the evolution's own rule"),
        ([r for r in records if r.comparison], "the challenger, not deployed by the rule"),
        (_faster(records), "the fastest in training, never compared"),
    ):
        if wanted:
            # The run is to use it whatever its workload looks like.
            return replace(wanted[-1], id=None, deployed=True, profile={}), told
    return None, "none was faster than the default"


def _faster(records: Sequence[GenomeRecord]) -> list[GenomeRecord]:
    """Those that missed less of the gain than the default genome, the best one last."""
    measured = [record for record in records if "regret" in record.fitness]
    par = min((r.fitness["regret"] for r in measured if r.origin == "default"), default=None)
    if par is None:
        return []
    better = [record for record in measured if record.fitness["regret"] < par]
    return sorted(better, key=lambda record: record.fitness["regret"], reverse=True)


def _ended(store: Path) -> bool:
    """Whether an evolution came to its end there, and told it."""
    if not store.exists():
        return False
    opened = open_store(URL.create("sqlite", database=str(store)))
    try:
        return any(event.kind == "evolution" for event in opened.events(limit=MOST))
    finally:
        opened.close()


def _records(store: Path) -> Sequence[GenomeRecord]:
    if not store.exists():
        return ()
    opened = open_store(URL.create("sqlite", database=str(store)))
    try:
        return opened.genomes(limit=MOST)
    finally:
        opened.close()
