"""The live steering benchmark's arithmetic, its statements, and the file that it goes on from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from backend.workload.statements import STATEMENTS
from benchmarks import steering_live
from benchmarks.live_steering import bench, comparison, unseen
from benchmarks.live_steering.ours import PacedClock
from benchmarks.live_steering.pieces import Cell, Pieces
from benchmarks.live_steering.search import ArmTimes, ClassOptimum

SPREAD = (0.98, 1.02, 1.0, 1.01, 0.99, 1.0)


def blocks_of(**ratios: float) -> list[dict[str, float]]:
    """Blocks in which the default plan takes a second, the others so many times as long."""
    return [
        {"default": 1.0, **{name: ratio * spread for name, ratio in ratios.items()}}
        for spread in SPREAD
    ]


def test_each_role_has_statements_of_its_own_and_draws_them_anew_only_for_another_seed() -> None:
    def draw(seed: int, role: str, number: int) -> object:
        return bench.parameters("order_by_id", 0.1, seed, role, number)

    assert draw(0, "fresh", 1) == draw(0, "fresh", 1)
    assert len({draw(s, r, n) for s in (0, 1) for r in ("fresh", "search") for n in (0, 1)}) == 8
    assert not [name for name in bench.READS if STATEMENTS[name].kind == "write"]


def test_short_statements_are_repeated_within_bounds() -> None:
    assert [bench.repeats_for(s) for s in (1.0, 0.021, 0.011, 0.0)] == [1, 1, 2, 10]


def test_a_class_that_keeps_its_default_plan_has_the_ratio_one_and_costs_no_confidence() -> None:
    blocks = {"fast": blocks_of(ours=0.5), "same": blocks_of(ours=1.3)}
    alone = comparison.class_ratios(blocks, "ours", {"fast": "no_sort", "same": "default"})
    assert {(r.name, r.value, r.high) for r in alone if r.hint_set == "default"} == {
        ("same", 1.0, 1.0)
    }
    both = comparison.class_ratios(blocks, "ours", {"fast": "no_sort", "same": "no_sort"})
    one, of_two = alone[0], both[0]
    assert one.value == of_two.value == pytest.approx(0.5, rel=0.01)
    assert of_two.low < one.low < one.value < one.high < of_two.high < 0.55


def test_bounds_are_those_of_students_t_at_a_level_for_all_classes_together() -> None:
    blocks = {name: blocks_of(ours=0.5) for name in ("a", "b", "c", "d", "e")}
    found = comparison.class_ratios(blocks, "ours", dict.fromkeys(blocks, "no_sort"))
    logs = [math.log(spread) for spread in SPREAD]
    mean = sum(logs) / 6
    error = math.sqrt(sum((x - mean) ** 2 for x in logs) / 5 / 6)
    assert math.log(found[0].high / found[0].value) == pytest.approx(3.3649 * error, rel=1e-3)


def test_of_the_reachable_gain_a_configuration_has_the_share_of_what_the_optimum_saves() -> None:
    blocks = {
        "long": blocks_of(ours=0.5, optimum=0.25, again=1.0),
        "short": blocks_of(ours=1.0, optimum=1.0, again=1.0),
    }
    assert comparison.total_of(blocks, "optimum").reached == 1.0
    assert comparison.total_of(blocks, "ours").reached == pytest.approx(0.5 / 0.75, rel=0.01)
    assert comparison.total_of(blocks, "ours").ratio.value == pytest.approx(0.75, rel=0.01)


def test_guesses_are_scored_by_their_sums_and_the_worse_ones_counted() -> None:
    def guess(name: str, default_s: float, guess_s: float, optimum_s: float) -> dict[str, object]:
        return {"guess": name, "default_s": default_s, "guess_s": guess_s, "optimum_s": optimum_s}

    found = unseen.score(
        [
            guess("no_sort", 4.0, 1.0, 1.0),
            guess("no_sort", 1.0, 1.2, 0.5),
            guess("default", 1.0, 1.0, 0.5),
            guess("no_sort", 1.0, 1.05, 1.0),
        ]
    )
    assert found.reached == pytest.approx((7.0 - 4.25) / 4.0)
    assert (found.worse, found.moved) == (0.25, 0.75)


def test_a_hint_set_of_no_arm_is_no_candidate_for_all_classes() -> None:
    arms = [ArmTimes(["default", "no_sort"], [0.1, 0.2], [False, False])]
    optimum = ClassOptimum(arms, {"default": 0.3}, "default")
    assert optimum.total_under("no_sort") == pytest.approx(0.3)
    assert optimum.total_under("no_hashjoin") == math.inf
    assert ClassOptimum.of_json(optimum.as_json()) == optimum


def test_a_finished_piece_is_read_and_not_measured_again(tmp_path: Path) -> None:
    cell = Cell("search", 0.1, 0, "never_bought", {"max_timeout_s": 30.0})
    measured: list[str] = []

    def measure() -> dict[str, int]:
        measured.append("once")
        return {"seconds": 3}

    for _ in range(2):
        pieces = Pieces(tmp_path / "out.jsonl")
        assert pieces.once(cell, measure) == {"seconds": 3}
        assert pieces.once(cell, measure) == {"seconds": 3}
    assert measured == ["once"]
    with (tmp_path / "out.jsonl").open("a") as file:
        file.write('\n{"cell": {"stage": "sea')  # a process was killed here
    assert Pieces(tmp_path / "out.jsonl").once(cell, measure) == {"seconds": 3}
    Pieces(tmp_path / "out.jsonl", redo=("single",)).once(cell, measure)
    assert measured == ["once"]
    Pieces(tmp_path / "out.jsonl", redo=("search",)).once(cell, measure)
    assert measured == ["once", "once"]


def test_the_explorers_clock_is_put_forward() -> None:
    clock = PacedClock()
    before_s, before = clock.monotonic_s(), clock.now()
    clock.skip(100.0)
    assert clock.monotonic_s() - before_s >= 100.0
    assert (clock.now() - before).total_seconds() >= 100.0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--classes", "place_order"],
        ["--share", "0"],
        ["--share", "1.5"],
        ["--scale", "0.1,0"],
        ["--blocks", "0"],
        ["--redo", "everything"],
    ],
)
def test_options_out_of_bounds_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        steering_live.parse(["--out", "x.jsonl", *arguments])
