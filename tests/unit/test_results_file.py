"""Results in files of JSON lines, and the options that they were made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import ConfigError
from benchmarks.filter_experiment.results import counted_trials, run_all
from benchmarks.filter_experiment.scripted import ScriptedResult
from benchmarks.results_file import append_line, keep_options, objects, results_in


def result(seed: int, variant: str, to_goal: int | None, trials: int) -> ScriptedResult:
    return ScriptedResult(seed, variant, to_goal, trials, 1.0, 0.5, 1, 0, 10, 2, {"probe": 3})


def test_a_cut_line_is_ignored_and_ended_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, '{"a": 1}')
    with path.open("a", encoding="utf-8") as file:
        file.write('{"a": 2, "b"')
    append_line(path, '{"a": 3}')
    assert list(objects(path)) == [{"a": 1}, {"a": 3}]
    assert list(objects(tmp_path / "none.jsonl")) == []


def test_options_are_noted_once_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lines.jsonl"
    for _ in range(2):
        keep_options(path, {"hours": 6.0, "trials": 150, "pair": (1, 2)})
    append_line(path, '{"a": 1}')
    assert list(results_in(path)) == [{"a": 1}]
    with pytest.raises(ConfigError, match="trials 150 instead of 80") as caught:
        keep_options(path, {"hours": 6.0, "trials": 80, "pair": (1, 2)})
    assert "hours" not in caught.value.message
    with pytest.raises(ConfigError, match=r"scale None instead of 0\.1"):
        keep_options(path, {"hours": 6.0, "trials": 150, "pair": (1, 2), "scale": 0.1})


def test_results_that_do_not_say_how_they_were_made_are_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, '{"a": 1}')
    with pytest.raises(ConfigError, match="does not say with which options"):
        keep_options(path, {"trials": 150})


def test_runs_go_on_where_they_were_cut(tmp_path: Path) -> None:
    path, ran = tmp_path / "runs.jsonl", []

    def run(seed: int, variant: str) -> ScriptedResult:
        ran.append((seed, variant))
        return result(seed, variant, None, 20)

    def all_of(seeds: range) -> list[ScriptedResult]:
        return run_all(run, ScriptedResult, seeds, ["a", "b"], path, lambda _: None, {"hours": 1})

    first = all_of(range(1))
    path.write_text(path.read_text().rstrip()[:-10])  # a kill in the middle of the second one
    assert all_of(range(1)) == first
    assert ran == [(0, "a"), (0, "b"), (0, "b")]
    assert [(one.seed, one.variant) for one in all_of(range(2))] == [
        (0, "a"), (0, "b"), (1, "a"), (1, "b")
    ]  # fmt: skip


def test_a_run_that_missed_the_goal_counts_with_the_trials_that_it_made() -> None:
    assert counted_trials(result(0, "a", 7, 30)) == 7.0
    assert counted_trials(result(0, "a", None, 30)) == 30.0
