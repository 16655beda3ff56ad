"""The benchmark of workload shifts: the arithmetic of returns, rows and the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from backend.errors import ConfigError
from benchmarks.shift.returns import (
    AFTER,
    MOST,
    Memory,
    Phase,
    PhaseFile,
    Return,
    Tried,
    returns_of,
    row_of,
)
from benchmarks.workload_shift import excess, percent

DEFAULT = {"a": 0}


def phase(
    number: int,
    workload: str,
    indexes: Mapping[int, float],
    *,
    seed: int = 0,
    first_visit: bool = False,
    best_index: float | None = 0.5,
    compared: Mapping[int, float] | None = None,
) -> Phase:
    """A phase whose trials set ``a`` to the keys, with these noise-free indexes."""
    return Phase(
        "ours",
        seed,
        number,
        workload,
        tuple(Tried({"a": a}, (1.0,), index, (2.0,), index=index) for a, index in indexes.items()),
        default=Tried(DEFAULT, (), 1.0, (0.0,), index=1.0) if first_visit else None,
        best_index=best_index,
        compared=compared or {},
    )


# -- returns ------------------------------------------------------------------------------------


def test_a_return_is_measured_against_the_best_of_all_earlier_visits() -> None:
    run = [
        phase(0, "day", {1: 0.9, 2: 0.6}, first_visit=True),
        phase(1, "night", {3: 0.8}, first_visit=True),
        phase(2, "day", {4: 0.9, 5: 0.63, 6: 0.7, 7: 0.9, 8: 0.3}),
        phase(3, "day", {8: 0.3}),
    ]
    first, second = returns_of(run)
    assert (first.phase, first.workload) == (2, "day")
    assert first.log_ratios == pytest.approx(
        {1: math.log(0.9 / 0.6), 2: math.log(0.63 / 0.6), 5: math.log(0.3 / 0.6)}
    )
    assert [first.within(k) for k in AFTER] == [False, True, True]
    assert second.log_ratios[1] == 0.0
    assert second.first == "best"


def test_five_percent_worse_is_within_and_more_is_not() -> None:
    known = phase(0, "day", {1: 0.5}, first_visit=True)
    (at,) = returns_of([known, phase(1, "day", {2: 0.5 * 1.0499})])
    (beyond,) = returns_of([known, phase(1, "day", {2: 0.5 * 1.0501})])
    assert at.within(1)
    assert not beyond.within(1)


def test_first_visits_are_no_returns_and_their_order_on_file_does_not_matter() -> None:
    run = [
        phase(2, "day", {1: 0.6}),
        phase(1, "night", {2: 0.9}, first_visit=True),
        phase(0, "day", {1: 0.6}, first_visit=True),
    ]
    assert [(r.phase, r.first) for r in returns_of(run)] == [(2, "best")]


@pytest.mark.parametrize(
    ("asked", "kind"), [(2, "best"), (1, "here"), (0, "here"), (3, "elsewhere"), (9, "new")]
)
def test_it_tells_where_the_first_configuration_comes_from(asked: int, kind: str) -> None:
    run = [
        phase(0, "day", {1: 0.9, 2: 0.6}, first_visit=True),
        phase(1, "night", {3: 0.8, 2: 0.9}, first_visit=True),
        phase(2, "day", {asked: 0.6}),
    ]
    assert returns_of(run)[0].first == kind


def test_it_tells_how_often_something_else_was_tried_a_second_time() -> None:
    run = [
        phase(0, "day", {1: 0.9, 2: 0.6}, first_visit=True),
        phase(1, "night", {3: 0.8}, first_visit=True),
        phase(2, "day", {2: 0.6, 3: 0.8, 4: 0.7, 0: 1.0, 5: 0.8}),
    ]
    assert returns_of(run)[0].again == 0.5  # 3 and 0 of the four after the first one
    (back,) = returns_of([run[0], phase(1, "day", {1: 0.9})])
    assert back.again == 0.0


def test_where_nothing_beat_the_default_configuration_it_is_the_best_known() -> None:
    run = [phase(0, "day", {1: 1.4}, first_visit=True), phase(1, "day", {0: 1.0})]
    (only,) = returns_of(run)
    assert only.first == "best"
    assert only.log_ratios[1] == 0.0
    assert (only.known_gain, only.first_gain) == (0.0, 0.0)


def test_gains_are_shares_of_what_can_be_reached() -> None:
    run = [phase(0, "day", {1: 0.7}, first_visit=True), phase(1, "day", {2: 0.75})]
    (only,) = returns_of(run)
    assert only.known_gain == pytest.approx(0.6)
    assert only.first_gain == pytest.approx(0.5)


def test_one_cliff_counts_ten_times_at_the_most() -> None:
    run = [phase(0, "day", {1: 0.5}, first_visit=True), phase(1, "day", {2: 80.0})]
    assert returns_of(run)[0].log_ratios[1] == MOST


def test_on_a_real_server_the_interleaved_comparison_counts() -> None:
    def measured(objective: float | None, *, censored: bool = False) -> Tried:
        return Tried({"a": 1}, (), objective, censored=censored)

    assert measured(0.7).value == 0.7
    assert measured(1.2, censored=True).value == 1.2
    assert measured(None).value == math.inf
    run = [
        phase(0, "day", {1: 0.5}, first_visit=True, best_index=None),
        phase(1, "day", {2: 0.7, 3: 0.6}, best_index=None, compared={1: 0.01, 5: -0.02}),
    ]
    (only,) = returns_of(run)
    assert only.log_ratios == pytest.approx({1: 0.01, 2: math.log(1.2), 5: -0.02})
    assert only.known_gain is None


def test_the_best_known_is_what_was_measured_best_in_the_workload() -> None:
    run = [
        phase(0, "day", {1: 0.9, 2: 0.4}, first_visit=True),
        phase(1, "night", {3: 0.2}, first_visit=True),
    ]
    assert Memory(run, "day").best_known == {"a": 2}
    assert Memory(run, "evening").best_known is None
    worse = phase(0, "day", {1: 1.2}, first_visit=True)
    assert Memory([worse], "day").best_known == DEFAULT


def test_a_lucky_measurement_is_known_as_best_until_it_is_measured_again() -> None:
    def trial(a: int, objective: float, index: float, *, censored: bool = False) -> Tried:
        return Tried({"a": a}, (), objective, censored=censored, index=index)

    lucky = (trial(1, 0.6, 0.8), trial(2, 0.7, 0.7), trial(3, 0.1, 0.9, censored=True))
    run = [Phase("ours", 0, 0, "day", lucky), Phase("ours", 0, 1, "day", (trial(1, 0.9, 0.8),))]
    (only,) = returns_of(run)
    assert only.first == "best"
    assert only.log_ratios[1] == 0.0
    assert only.of_tried == pytest.approx(math.log(0.8 / 0.7))
    memory = Memory(run, "day")
    assert memory.best_known == {"a": 2}
    assert memory.best_value == 0.7


# -- the row of a method ------------------------------------------------------------------------


def returned(seed: int, *log_ratios: float, first: str = "best") -> Return:
    ratios = dict(zip(AFTER, log_ratios, strict=True))
    gain = -50.0 if first == "elsewhere" else 0.6
    again = 0.3 if first == "new" else 0.0
    return Return("ours", seed, 2, "day", ratios, first, 2 * log_ratios[0], 0.8, gain, again)


def test_a_row_has_the_mean_of_logs_the_spread_of_runs_and_shares() -> None:
    row = row_of(
        "ours",
        [
            returned(0, 0.0, 0.0, 0.0),
            returned(0, 0.2, 0.1, 0.0, first="new"),
            returned(1, 0.3, 0.0, -0.1, first="elsewhere"),
        ],
    )
    assert row.returns == 3
    assert row.excess[1] == pytest.approx(math.expm1(0.5 / 3))
    assert row.spread[1] == pytest.approx(0.2 / math.sqrt(2))  # of the runs' means 0.1 and 0.3
    assert row.within == pytest.approx({1: 1 / 3, 2: 2 / 3, 5: 1.0})
    assert row.within_tried == pytest.approx(1 / 3)
    assert row.first == [1, 0, 1, 1]
    assert (row.known_gain, row.first_gain) == (0.8, 0.6)
    assert row.again == pytest.approx(0.1)
    assert excess(row, 1) == f"{100 * math.expm1(0.5 / 3):+.1f} ± 15.2 %"


def test_a_single_run_has_no_spread_and_none_no_row() -> None:
    assert row_of("ours", [returned(0, 0.1, 0.1, 0.1)]).spread[1] == 0.0
    with pytest.raises(ValueError, match="no return"):
        row_of("ours", [])
    assert percent(None) == ""


# -- the file -----------------------------------------------------------------------------------


def test_phases_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "phases.jsonl"
    phases = [
        phase(0, "day", {1: 0.9}, first_visit=True),
        phase(1, "day", {1: 0.9}, compared={1: 0.5}),
    ]
    PhaseFile(path).add(phases)
    again = PhaseFile(path).run("ours", 0)
    assert returns_of(again) == returns_of(phases)
    assert again[1].compared == {1: 0.5}
    assert PhaseFile(path).run("ours", 1) == []


def test_a_line_cut_off_by_a_crash_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "phases.jsonl"
    file = PhaseFile(path)
    file.add([phase(0, "day", {1: 0.9}, first_visit=True), phase(1, "night", {1: 0.9})])
    path.write_text(path.read_text()[:-40])
    file = PhaseFile(path)
    assert [p.number for p in file.run("ours", 0)] == [0]
    file.add([phase(1, "night", {1: 0.9})])
    assert [p.number for p in PhaseFile(path).run("ours", 0)] == [0, 1]


def test_a_file_that_was_made_otherwise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "phases.jsonl"
    PhaseFile(path, {"trials": 15, "workloads": 2}).add([phase(0, "day", {1: 0.9})])
    assert len(PhaseFile(path, {"trials": 15, "workloads": 2}).run("ours", 0)) == 1
    with pytest.raises(ConfigError, match="trials 15 instead of 30"):
        PhaseFile(path, {"trials": 30, "workloads": 2})
    untold = tmp_path / "untold.jsonl"
    PhaseFile(untold).add([phase(0, "day", {1: 0.9})])
    with pytest.raises(ConfigError, match="does not say with which options"):
        PhaseFile(untold, {"trials": 15})


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "phases.jsonl"
    path.write_text('{"method": "ours"}\n')
    with pytest.raises(ValueError, match="not a phase"):
        PhaseFile(path)
