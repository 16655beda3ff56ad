"""The benchmark of an ask and a tell, on a small space."""

from __future__ import annotations

from benchmarks.knob_agent_cost import MEASURED, knob_of_a_kind, times_s


def test_knobs_of_all_kinds_are_asked_for() -> None:
    assert {knob_of_a_kind(number).kind for number in range(5)} == {
        "boolean",
        "categorical",
        "integer",
        "real",
    }


def test_the_newest_asks_and_tells_are_timed() -> None:
    taken = times_s(knobs=5, samples=MEASURED, seed=0)
    assert len(taken) == MEASURED
    assert all(asked_s >= 0 and told_s > 0 for asked_s, told_s in taken)
