"""The course of the live comparison: what is done, left out and begun too late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.domain.clock import ManualClock
from benchmarks.harness.command_line import TimeLimit
from benchmarks.live import course, methods
from benchmarks.live.records import AS_TRIALS, Comparison, Pace, Part, Results
from tests.live_comparison import PROTOCOL, compared, part


class CountingRun:
    """Stands for a method's run: takes the method's time on a clock that is turned by hand."""

    ran: list[str]
    clock: ManualClock

    def __init__(self, live: Any, name: str, seed: int, *rest: Any) -> None:
        self._name, self._seed, self._results = name, seed, rest[1]

    def fixed(self) -> Part:
        CountingRun.ran.append(self._name)
        return part(self._name, seed=self._seed)

    def tuned(self, tuner: object) -> Part:
        CountingRun.ran.append(f"{self._name}: {tuner}")
        self.clock.advance(120.0)
        return part(self._name, (0.9,), {"work_mem": 7}, seed=self._seed)

    def finish(self, done: Part) -> None:
        self._results.add_part("run", done)


@pytest.fixture
def cell_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a cell on stand-ins; returns what was done."""
    CountingRun.ran = []

    def compare(
        live: Any, seed: int, parts: Mapping[str, Part], blocks: int, *rest: Any
    ) -> Comparison:
        CountingRun.ran.append("comparison")
        CountingRun.clock.advance(300.0)
        finals = {method: dict(found.final) for method, found in parts.items()}
        made = compared({method: [1.0] * blocks for method in parts}, seed)
        return replace(made, finals=finals, pace=rest[-1])

    monkeypatch.setattr(course, "MethodRun", CountingRun)
    monkeypatch.setattr(course, "compare", compare)
    monkeypatch.setattr(methods, "make", lambda name, seed, problem: f"tuner of seed {seed}")

    path = tmp_path / "results.jsonl"
    told: list[str] = []
    clock = ManualClock()
    monkeypatch.setattr(
        "benchmarks.harness.command_line.time", SimpleNamespace(monotonic=clock.monotonic_s)
    )
    CountingRun.clock = clock

    def run(
        *names: str,
        blocks: int = 6,
        seeds: tuple[int, ...] = (3,),
        minutes: float | None = None,
        pace: Pace = AS_TRIALS,
    ) -> list[str]:
        CountingRun.ran = []
        told.clear()
        live: Any = SimpleNamespace(workload=SimpleNamespace(name="mixed"))
        results = Results(path)
        problem: Any = None
        limit = TimeLimit(minutes)
        course.Course(live, PROTOCOL, results, problem, blocks, pace, limit, told.append).run(
            names, seeds
        )
        return CountingRun.ran

    return SimpleNamespace(run=run, told=told, path=path)


def test_finished_parts_are_skipped(cell_runner: Any) -> None:
    first = cell_runner.run("defaults", "tpe")
    assert first == ["defaults", "tpe: tuner of seed 3", "comparison"]
    assert cell_runner.run("defaults", "tpe") == []


def test_one_more_method_or_more_blocks_need_a_new_comparison(cell_runner: Any) -> None:
    cell_runner.run("defaults", "tpe")
    assert cell_runner.run("defaults", "tpe", "ours") == ["ours: tuner of seed 3", "comparison"]
    assert cell_runner.run("defaults", "tpe", "ours", blocks=8) == ["comparison"]
    assert cell_runner.run("defaults", "tpe", blocks=8) == []


def test_a_comparison_on_the_trials_own_statements_is_done_again(cell_runner: Any) -> None:
    cell_runner.run("defaults", "tpe")
    results = Results(cell_runner.path)
    results.add_comparison(replace(results.comparisons["mixed", 3], arrivals=None))
    assert cell_runner.run("defaults", "tpe") == ["comparison"]


def test_what_was_measured_before_is_compared_too(cell_runner: Any) -> None:
    cell_runner.run("defaults", "tpe")
    assert cell_runner.run("ours") == ["ours: tuner of seed 3", "comparison"]
    assert cell_runner.told[-1] == "mixed, seed 3: comparison of ours, defaults, tpe"
    assert cell_runner.run("tpe") == []


def test_another_pace_needs_a_new_comparison(cell_runner: Any) -> None:
    cell_runner.run("defaults", "tpe")
    fast = Pace(window_s=4.0, settle_s=1.0)
    assert cell_runner.run("defaults", "tpe", pace=fast) == ["comparison"]
    assert cell_runner.run("defaults", "tpe", pace=fast) == []
    assert cell_runner.run("defaults", "tpe") == ["comparison"]


def test_a_piece_begins_nothing_that_would_end_too_late_and_tells_what_remains(
    cell_runner: Any,
) -> None:
    # Expected here: 2.3 minutes a method (fresh data, baseline, one minute), 5 a comparison.
    methods_of_cell = ("defaults", "tpe", "ours")
    run = partial(cell_runner.run, *methods_of_cell, seeds=(3, 4))
    assert run(minutes=1.0) == ["defaults"]
    left = "mixed, seed 3: tpe, ours, comparison; mixed, seed 4: defaults, tpe, ours, comparison"
    assert cell_runner.told[-1] == f"not begun, for it would end too late: {left}"
    assert run(minutes=3.0) == ["tpe: tuner of seed 3"]
    assert run(minutes=7.0) == ["ours: tuner of seed 3", "comparison", "defaults"]
    assert "seed 3" not in cell_runner.told[-1]
    assert "mixed, seed 4: tpe, ours, comparison" in cell_runner.told[-1]
    assert run() == ["tpe: tuner of seed 4", "ours: tuner of seed 4", "comparison"]
    assert run(minutes=0.1) == []
    assert not any("too late" in text for text in cell_runner.told)
