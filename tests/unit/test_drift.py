"""Drift: when what stands is due to be looked at again, and what the recheck then says."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest

from backend.domain.modes import Verdict
from backend.drift import (
    GROWN,
    LOOK_S,
    MOST_A_LOOK,
    MOVED_LOOKS,
    Alarm,
    DriftLimits,
    DriftWatch,
    Noted,
    RiseTest,
    beyond_load,
    merged,
)
from backend.gate import judge_recheck
from backend.sample_filter import IndexChain, Reference, load_profile
from tests.windows import START, key, window

CHAIN = IndexChain(Reference({key(1): (0.8, 2.0), key(2): (0.2, 10.0)}), factor=0.7)
DAY = timedelta(days=1)
NOISE = 0.05


def offered(slower: float = 1.0, volume: float = 1.0, duration_s: float = 10.0, **gauges: float):
    """A window of the reference's load; its index is ``0.7 * slower``."""
    calls = {1: (round(400 * volume), 2.0 * slower), 2: (round(100 * volume), 10.0 * slower)}
    return window(calls, duration_s, gauges=gauges)


class Watched:
    """A watch of something that had index 0.7."""

    def __init__(self, due_at=None, **gauges: float) -> None:
        self.watch = DriftWatch(DriftLimits())
        then = load_profile(offered())
        self.watch.begin(Noted(START, 0.7, due_at, gauges=gauges or None, load=then), NOISE)

    def see(self, *windows) -> Alarm | None:
        for one in windows:
            self.watch.observe(one, CHAIN)
        return self.watch.alarm(START)


def noisy(rng: np.random.Generator, slower: float, count: int) -> list:
    return [offered(slower * math.exp(rng.normal(0.0, NOISE))) for _ in range(count)]


class TestRise:
    def test_a_lasting_rise_is_noticed_and_told(self) -> None:
        watched, rng = Watched(), np.random.default_rng(1)
        assert watched.see(*noisy(rng, 1.0, 200)) is None
        alarm = watched.see(*noisy(rng, 1.1, 60))
        assert alarm is not None
        assert not alarm.urgent
        assert "risen" in alarm.reason
        assert "0.70" in alarm.reason

    def test_a_fall_is_none(self) -> None:
        assert Watched().see(*[offered(0.5)] * 200) is None

    def test_what_is_smaller_than_a_worthwhile_gain_is_none(self) -> None:
        assert Watched().see(*[offered(1.015)] * 500) is None
        assert Watched().see(*[offered(1.06)] * 500) is not None

    def test_the_spread_of_what_is_seen_counts_where_it_is_wider_than_the_noise(self) -> None:
        rng = np.random.default_rng(0)
        quiet, loud = RiseTest(0.01, 0.0), RiseTest(0.01, 0.0)
        for _ in range(6):
            quiet.add(0.0)
            loud.add(rng.normal(0.0, 0.1))
        before = loud.sum
        quiet.add(0.1)
        loud.add(0.1)
        assert quiet.sum == MOST_A_LOOK
        assert loud.sum - before < 1

    def test_one_slow_window_is_no_alarm(self) -> None:
        assert Watched().see(offered(3.0), *[offered()] * 3, offered(3.0), offered()) is None


class TestStrong:
    def test_so_many_windows_far_above_are_urgent(self) -> None:
        watched = Watched()
        assert watched.see(offered(1.3)) is None
        alarm = watched.see(offered(1.3))
        assert alarm == Alarm("the index is more than 15% above 0.70", urgent=True)

    def test_short_windows_have_to_be_more(self) -> None:
        watched, short = Watched(), offered(1.4, volume=0.5, duration_s=5.0)
        assert watched.see(*[short] * 3) is None
        alarm = watched.see(short)
        assert alarm is not None
        assert alarm.urgent

    def test_more_load_may_explain_it_and_less_may_not(self) -> None:
        assert Watched().see(*[offered(1.3, volume=1.5)] * 4) is None
        alarm = Watched().see(*[offered(1.3, volume=0.7)] * 4)
        assert alarm is not None
        assert alarm.urgent

    def test_windows_of_other_statements_say_nothing(self) -> None:
        assert Watched().see(*[window({2: (100, 10.0), 7: (900, 90.0)})] * 4) is None
        assert Watched().see(*[window({2: (100, 100.0)})] * 4) is None  # half of the reference

    def test_what_began_anew_knows_nothing_of_before(self) -> None:
        watched = Watched()
        watched.see(offered(1.3))
        watched.watch.begin(Noted(START, 0.7, load=load_profile(offered())), NOISE)
        assert watched.see(offered(1.3)) is None
        watched.watch.stop()
        assert watched.see(*[offered(9.0)] * 9) is None


class TestSurroundings:
    @pytest.mark.parametrize(
        ("name", "before", "said"),
        [("database_size_bytes", 4e9, "4.00 GB to 5.20 GB"), ("live_tuples", 1e6, "1e+06")],
    )
    def test_data_grew(self, name: str, before: float, said: str) -> None:
        watched = Watched(**{name: before})
        assert watched.see(offered(**{name: before * (1 + 0.8 * GROWN)})) is None
        alarm = watched.see(offered(**{name: before * 1.3}))
        assert alarm is not None
        assert said in alarm.reason
        assert not alarm.urgent

    def test_rows_that_went_count_as_much(self) -> None:
        watched = Watched(live_tuples=1e6)
        assert watched.see(offered(live_tuples=7e5)) is not None

    def test_a_small_table_says_nothing(self) -> None:
        assert Watched(live_tuples=500.0).see(offered(live_tuples=5000.0)) is None

    def test_what_the_first_window_shows_is_what_it_is_compared_with(self) -> None:
        watched = Watched()
        assert watched.see(offered(live_tuples=1e6)) is None
        assert watched.watch.noted is not None
        assert watched.watch.noted.gauges == {"live_tuples": 1e6}
        assert watched.see(offered(live_tuples=2e6)) is not None

    def test_statistics_were_renewed(self) -> None:
        watched = Watched()
        for stale in (0.0, 150_000.0, 0.0, 90_000.0):
            assert watched.see(offered(live_tuples=1e6, modified_since_analyze=stale)) is None
        alarm = watched.see(offered(live_tuples=1e6, modified_since_analyze=30_000.0))
        assert alarm is not None
        assert alarm.reason == "planner statistics were renewed: 21% of the rows had changed"

    def test_the_load_moved(self) -> None:
        watched = Watched()
        windows = round(MOVED_LOOKS * LOOK_S / 10)
        assert watched.see(*[offered(volume=1.3)] * 2 * windows) is None
        assert watched.see(*[offered(volume=2.0)] * (windows - 6)) is None
        alarm = watched.see(*[offered(volume=2.0)] * 6)
        assert alarm is not None
        assert alarm.reason == "the offered load is another for 10 minutes"

    def test_time(self) -> None:
        watched = Watched(due_at=START + DAY)
        assert watched.watch.alarm(START + 0.9 * DAY) is None
        assert watched.watch.alarm(START + DAY) == Alarm("a long time has passed")

    def test_nothing_is_due_without_an_end(self) -> None:
        assert Watched().watch.alarm(START + 1000 * DAY) is None


@pytest.mark.parametrize(
    ("rise", "volume", "expected"),
    [
        (0.10, 1.0, 0.10),
        (0.10, 0.5, 0.10),  # slower under less load: no excuse
        (0.10, 3.0, 0.0),
        (-0.10, 3.0, -0.10),  # faster under more load: all the better
        (-0.10, 0.5, 0.0),
    ],
)
def test_the_load_explains_at_most_as_much_as_it_differs(
    rise: float, volume: float, expected: float
) -> None:
    now, then = load_profile(offered(volume=volume)), load_profile(offered())
    found = beyond_load(rise, now, then, 10.0, CHAIN.reference.costs_ms)
    assert found == pytest.approx(expected)


def test_windows_are_merged_by_their_time() -> None:
    first = window({1: (10, 2.0)}, 10.0, gauges={"a": 1.0}, rates={"r": 1.0})
    second = window({1: (30, 4.0), 2: (5, 1.0)}, 30.0, gauges={"a": 3.0}, rates={"r": 5.0})
    whole = merged([first, second])
    assert whole.duration_s == 40.0
    assert whole.calls == 45
    assert whole.queries[key(1)].mean_ms == pytest.approx(3.5)
    assert whole.rates == {"r": pytest.approx(4.0)}
    assert whole.gauges == {"a": 3.0}


class TestVerdict:
    """Log ratios of what stands against what it replaced."""

    @pytest.mark.parametrize(
        ("ratios", "verdict", "said"),
        [
            ([-0.10, -0.11, -0.10], Verdict.ACCEPT, "still better"),
            ([0.10, 0.11, 0.10], Verdict.REJECT, "proven worse"),
            ([-0.004, 0.004, -0.004, 0.004], Verdict.REJECT, "too small a gain is left"),
            ([-0.010, -0.011, -0.010], Verdict.ACCEPT, "still better"),  # small, but there
            ([-0.10, 0.10, -0.10, 0.10, -0.1, 0.1], Verdict.INCONCLUSIVE, "not clear"),
            ([-0.10, 0.10, -0.10, 0.10], None, "not clear"),
            ([0.5, 0.5], None, "of at least 3"),
            ([math.nan] * 6, Verdict.INCONCLUSIVE, "not clear"),
        ],
    )
    def test_where_it_was_proven(
        self, ratios: list[float], verdict: Verdict | None, said: str
    ) -> None:
        judged = judge_recheck(ratios, 6, math.log(0.98))
        assert judged.verdict is verdict
        assert said in judged.reasons[0]

    def test_elsewhere_only_harm_undoes_it(self) -> None:
        nothing, little, harm = [0.001, -0.001, 0.0] * 2, [0.01, 0.011, 0.01] * 2, [0.05, 0.06] * 3
        verdicts = [judge_recheck(r, 6, math.log(1.02)).verdict for r in (nothing, little, harm)]
        assert verdicts == [Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, Verdict.REJECT]

    def test_unclear_ones_add_up(self) -> None:
        rng = np.random.default_rng(3)
        earlier: list[float] = []
        for _ in range(60):
            ratios = list(rng.normal(0.0, 0.04, 6))
            judged = judge_recheck(ratios, 6, math.log(0.98), earlier)
            if judged.verdict is not Verdict.INCONCLUSIVE:
                break
            earlier += ratios
        assert judged.verdict is Verdict.REJECT
        assert earlier

    @pytest.mark.parametrize("true_effect", [-0.10, -0.05, -0.03])
    def test_a_gain_is_seldom_undone(self, true_effect: float) -> None:
        rng = np.random.default_rng(7)
        undone = 0
        for _ in range(1000):
            ratios = list(rng.normal(math.log1p(true_effect), 0.05, 6))
            verdicts = (judge_recheck(ratios[:n], 6, math.log(0.98)).verdict for n in range(3, 7))
            undone += next((v for v in verdicts if v is not None), None) is Verdict.REJECT
        assert undone <= 50  # alpha of the rule: 5 %
