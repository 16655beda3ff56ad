"""The filter's experiment on replayed noise: what is replayed is what was recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from backend.config import load_settings
from backend.data_collector import window_between
from backend.domain.clock import ManualClock
from backend.domain.metrics import MetricsWindow
from backend.domain.modes import Phase
from backend.domain.records import QueryWindowRecord, WindowRecord
from backend.errors import ConfigError
from backend.telemetry import open_store
from benchmarks.filter_experiment.replay import (
    EPOCH,
    RUN_S,
    Recording,
    ReplayedServer,
    recordings,
    resampled_trials,
)
from benchmarks.sample_filter import app
from tests.windows import START, window

SETTINGS = load_settings(environ={})


def _recorded(numbers: Sequence[int], gap_s: float = 0.0, seed: int = 0) -> list[MetricsWindow]:
    """Neighbouring windows of 5 s with noisy times."""
    rng = np.random.default_rng(seed)
    found = []
    for number in numbers:
        start = START + timedelta(seconds=number * (5.0 + gap_s))
        noise = rng.normal(0, 0.05, 2)
        made = window({1: (100, 2.0 * math.exp(noise[0])), 2: (20, 9.0 * math.exp(noise[1]))}, 5.0)
        found.append(replace(made, started_at=start, ended_at=start + timedelta(seconds=5)))
    return found


def test_what_is_replayed_is_what_was_recorded() -> None:
    windows = _recorded(range(6))
    clock = ManualClock(EPOCH)
    server = ReplayedServer(windows, clock)
    assert server.seconds == 30
    first = server.collect()
    clock.advance(10.0)
    measured = window_between(first, server.collect())
    assert measured is not None
    for key in windows[0].queries:
        both = [w.queries[key] for w in windows[:2]]
        assert measured.queries[key].calls == sum(q.calls for q in both)
        assert measured.queries[key].exec_time_ms == pytest.approx(
            sum(q.exec_time_ms for q in both)
        )


def test_a_course_lasts_and_holds_only_neighbours() -> None:
    recording = Recording("here", (*_recorded(range(60)), *_recorded(range(2000, 2060))))
    course = recording.course(1000.0, np.random.default_rng(0))
    assert sum(w.duration_s for w in course) >= 1000
    length = int(RUN_S / 5)
    for start in range(0, len(course), length):
        piece = course[start : start + length]
        assert all(after.started_at == before.ended_at for before, after in pairwise(piece))
    starts = {w.started_at for w in course}
    assert len(starts) > 40


def test_pieces_do_not_span_what_was_not_measured() -> None:
    assert Recording("gaps", tuple(_recorded(range(40), gap_s=100.0))).starts == []


def test_what_is_the_same_is_hardly_ever_promoted() -> None:
    source = Recording("noise", tuple(_recorded(range(400))))
    found = resampled_trials(SETTINGS, [source], trials=12, seed=0)
    assert found.trials == 12
    assert found.false_promotions <= 2
    assert 0.01 < found.spread < 0.1


def _stored(folder: Path, windows: Sequence[MetricsWindow]) -> Path:
    path = folder / "telemetry.db"
    store = open_store(f"sqlite:///{path}")
    for made in windows:
        store.add_window(
            WindowRecord(
                started_at=made.started_at,
                ended_at=made.ended_at,
                duration_s=made.duration_s,
                phase=Phase.LEARNING,
                config={"work_mem": 4096},
                queries=tuple(
                    QueryWindowRecord(str(q.key), q.calls, q.mean_ms) for q in made.queries.values()
                ),
            )
        )
    store.close()
    return path


def test_windows_come_from_a_store(tmp_path: Path) -> None:
    windows = _recorded(range(80))
    (source,) = recordings([_stored(tmp_path, windows)])
    assert source.seconds == 400
    assert len(source.windows) == 80
    kept = source.windows[7].queries
    assert {k: q.calls for k, q in kept.items()} == {
        k: q.calls for k, q in windows[7].queries.items()
    }


def test_too_short_a_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer runs"):
        recordings([_stored(tmp_path, _recorded(range(10)))])


def test_the_commands_print_their_tables(tmp_path: Path) -> None:
    path = _stored(tmp_path, _recorded(range(80)))
    result = CliRunner().invoke(app, ["resampled", "--store", str(path), "--trials", "3"])
    assert result.exit_code == 0, result.output
    assert "A/A promotions on resampled noise" in result.output
    result = CliRunner().invoke(app, ["doubled-load", "--seeds", "1"])
    assert result.exit_code == 0, result.output
    assert "better" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["filter on", "plain DDPG"])
def test_a_short_run_of_the_tuner(tmp_path: Path, variant: str) -> None:
    from benchmarks.filter_experiment.results import read_results, run_all
    from benchmarks.filter_experiment.tuning import RunResult, run_one

    out = tmp_path / "results.jsonl"
    made = []
    for _ in range(2):  # the second time there is nothing left to do
        results = run_all(
            lambda seed, name: run_one(seed, name, 0.4, 6),
            RunResult, [0], [variant], out, made.append, {"hours": 0.4, "max_trials": 6},
        )  # fmt: skip
        assert len(results) == len(made) == 1
    assert results == read_results(out, RunResult)
    (result,) = results
    assert 1 <= result.trials <= 6
    assert result.final_share <= 1.0
