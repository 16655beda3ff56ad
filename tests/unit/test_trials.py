"""Trials as a state machine: arms, windows, verdicts, and the deployed arm at every end."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from backend.data_collector import window_between
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobValue
from backend.domain.metrics import MetricsSnapshot, QueryCounters
from backend.domain.modes import Arm, SafetyAction, TrialKind, TrialState, Verdict
from backend.domain.safety import SafetyVerdict
from backend.errors import AdjustmentError, ServerConnectionError
from backend.gate import GateSettings
from backend.sample_filter import Reference
from backend.targets.simulated import LoadScript, Noise, SimulatedDatabase
from backend.trials import (
    MAX_EXCUSES,
    MAX_STRADDLE_S,
    MAX_VOID_WINDOWS,
    MeasuredWindow,
    Trial,
    TrialPlan,
)
from tests.windows import START, key, window

WINDOW_S, SETTLE_S = 10.0, 2.0
CLASSES = {1: (30.0, 3.0), 2: (10.0, 20.0)}
"""Calls per second and mean time in ms of each query class of the fake server."""
SHARES = Reference.from_windows(
    [window({n: (int(100 * rate), ms) for n, (rate, ms) in CLASSES.items()})]
)
ALLOW = SafetyVerdict(SafetyAction.ALLOW)


class Server:
    """A server without noise whose load, effect and mishaps are functions of time.

    ``effect`` multiplies all times while the arm that is not deployed stands; ``load`` multiplies
    the calls at a moment, ``slow`` the times. ``stopped`` classes do not run under that arm;
    class 3 is a batch job's, one call a second within ``batch_at_s``.
    """

    def __init__(self, clock: ManualClock, effect: float = 1.0) -> None:
        self.clock, self.effect = clock, effect
        self.load: Callable[[float], float] = lambda at_s: 1.0
        self.slow: Callable[[float], float] = lambda at_s: 1.0
        self.oldest_began_s: float | None = None
        self.stopped: set[int] = set()
        self.batch_at_s, self.batch_factor = (0.0, 0.0), 1.0
        self.other_stands = False
        self.loaded_at = self.reset_at = self.started_at = START
        self.log: list[str] = []
        self.trial_ids: list[int | None] = []
        self.fail: dict[str, list[Exception]] = {"enter": [], "leave": [], "collect": []}
        self._totals = dict.fromkeys(CLASSES, (0.0, 0.0))
        self._until_s = clock.monotonic_s()

    def collect(self) -> MetricsSnapshot:
        self._raise("collect")
        self._work()
        gauges = {}
        if self.oldest_began_s is not None:
            gauges["longest_statement_s"] = self.clock.monotonic_s() - self.oldest_began_s
        return MetricsSnapshot(
            taken_at=START + timedelta(seconds=self.clock.monotonic_s()),
            server_started_at=self.started_at,
            config_loaded_at=self.loaded_at,
            statistics_reset_at=self.reset_at,
            gauges=gauges,
            queries={key(n): QueryCounters(round(c), t) for n, (c, t) in self._totals.items()},
        )

    def enter(self, values: Mapping[str, KnobValue | None], trial_id: int | None) -> str:
        self._raise("enter")
        self._work()
        assert not self.other_stands, "the other arm was entered twice"
        self.other_stands = True
        self._reload()
        self.log.append(f"enter {dict(values)}")
        self.trial_ids.append(trial_id)
        return f"batch {len(self.log)}"

    def leave(self, batch_id: str, reason: str) -> None:
        self._raise("leave")
        self._work()
        assert self.other_stands, "an arm was left that did not stand"
        assert batch_id == f"batch {len(self.log)}"
        self.other_stands = False
        self._reload()
        self.log.append("leave")

    def reset_statistics(self) -> None:
        self._work()
        self._totals = dict.fromkeys(CLASSES, (0.0, 0.0))
        self.reset_at = self._now

    def reload_by_somebody(self) -> None:
        self._work()
        self._reload()

    @property
    def _now(self):
        return START + timedelta(seconds=self.clock.monotonic_s())

    def _reload(self) -> None:
        self.loaded_at = self._now

    def _raise(self, operation: str) -> None:
        if self.fail[operation]:
            raise self.fail[operation].pop(0)

    def _work(self) -> None:
        """Run the clients in steps of half a second up to now."""
        now_s = self.clock.monotonic_s()
        factor = self.effect if self.other_stands else 1.0
        while self._until_s < now_s:
            step_s = min(0.5, now_s - self._until_s)
            at_s = self._until_s
            for n, (rate, mean_ms) in CLASSES.items():
                if self.other_stands and n in self.stopped:
                    continue
                calls, total_ms = self._totals[n]
                more = rate * self.load(at_s) * step_s
                time_ms = more * mean_ms * factor * self.slow(at_s)
                self._totals[n] = (calls + more, total_ms + time_ms)
            if self.batch_at_s[0] <= at_s < self.batch_at_s[1]:
                calls, total_ms = self._totals.get(3, (0.0, 0.0))
                slow = self.batch_factor if self.other_stands else 1.0
                self._totals[3] = (calls + step_s, total_ms + step_s * 400.0 * slow)
            self._until_s += step_s


def plan(kind: TrialKind = TrialKind.PROMOTION, **changes) -> TrialPlan:
    deployed = Arm.CANDIDATE if kind in (TrialKind.PROBATION, TrialKind.FINAL) else Arm.INCUMBENT
    values: dict = {"work_mem": 65536}
    made = TrialPlan(
        kind=kind,
        proposer="agent",
        before={"work_mem": 4096},
        after=values,
        other_values=values if deployed is Arm.INCUMBENT else {"work_mem": None},
        deployed=deployed,
        shares=SHARES,
        gate=GateSettings(),
        window_s=WINDOW_S,
        settle_s=SETTLE_S,
    )
    return replace(made, **changes)


class Bench:
    """A trial on the fake server, with what it told."""

    def __init__(self, made: TrialPlan, effect: float = 1.0, record_id: int | None = 7) -> None:
        self.clock = ManualClock(START)
        self.server = Server(self.clock, effect)
        self.measured: list[MeasuredWindow] = []
        self.arms: list[bool] = []
        self.judged: list[float | None] = []
        self.safety: Callable[[float | None], SafetyVerdict] = lambda ratio: ALLOW
        self.progress: list[float] = []
        self.trial = Trial(
            made,
            collect=self.server.collect,
            switch=self.server,
            clock=self.clock,
            on_window=self._on_window,
            judge_safety=self._judge,
            record_id=record_id,
        )

    def _on_window(self, measured: MeasuredWindow) -> None:
        self.measured.append(measured)
        # What stands while a window is told must be the arm that it is booked under.
        other = measured.arm is not self.trial.plan.deployed
        assert self.server.other_stands is other

    def _judge(self, found, incumbent, log_ratio: float | None) -> SafetyVerdict:
        self.judged.append(log_ratio)
        return self.safety(log_ratio)

    def tick(self, step_s: float = 0.25) -> None:
        self.trial.tick()
        self.progress.append(self.trial.progress)
        self.clock.advance(step_s)

    def run(self, limit_s: float = 20_000, step_s: float = 0.25) -> Trial:
        """Tick until the end; the limit only catches a trial that never ends."""
        while not self.trial.finished:
            assert self.clock.monotonic_s() < limit_s, "the trial does not end"
            self.tick(step_s)
        self.check_end()
        return self.trial

    def run_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert not self.trial.finished
            assert self.clock.monotonic_s() < 20_000
            self.tick()

    def check_end(self) -> None:
        assert self.trial.state is TrialState.FINISHED
        assert self.trial.verdict is not None
        assert self.trial.reasons
        assert self.trial.finished_at is not None
        assert not self.server.other_stands
        assert self.progress == sorted(self.progress)
        assert all(0 <= p <= 1 for p in self.progress)

    @property
    def order(self) -> str:
        return "".join(m.arm.value[0].upper() for m in self.measured)


# -- the sequence of arms -------------------------------------------------------------------


def test_a_probe_measures_incumbent_candidate_incumbent():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    trial = bench.run()
    assert bench.order == "ICI"
    assert bench.server.log == ["enter {'work_mem': 65536}", "leave"]
    assert bench.server.trial_ids == [7]
    assert trial.verdict is Verdict.ACCEPT
    assert math.expm1(trial.effect_log_ratio) == pytest.approx(-0.25, abs=0.01)


def test_a_probe_without_promise_is_rejected():
    assert Bench(plan(TrialKind.PROBE), effect=0.97).run().verdict is Verdict.REJECT
    assert Bench(plan(TrialKind.PROBE), effect=1.3).run().verdict is Verdict.REJECT


@pytest.mark.parametrize("seed", range(6))
def test_a_promotion_runs_balanced_random_blocks(seed):
    bench = Bench(plan(seed=seed), effect=0.75)
    bench.run()
    blocks = [bench.order[i : i + 4] for i in range(0, len(bench.order), 4)]
    assert set(blocks) <= {"ICCI", "CIIC"}
    assert len(blocks) == 4


def test_the_order_of_the_blocks_is_random_and_seeded():
    orders = []
    for seed in [*range(12), 0]:
        bench = Bench(plan(seed=seed), effect=0.75)
        bench.run()
        orders.append(bench.order)
    assert len(set(orders)) > 4
    assert orders[0] == orders[-1]


def test_probation_returns_to_the_former_configuration_and_ends_with_the_deployed_one():
    gate = GateSettings(min_blocks=3, max_blocks=4)
    # The arm that is not deployed is the former one: slower, so the deployment proves itself.
    bench = Bench(plan(TrialKind.PROBATION, gate=gate), effect=1.4)
    trial = bench.run()
    assert len(bench.order) == 6
    assert {bench.order[i : i + 2] for i in (0, 2, 4)} <= {"IC", "CI"}
    assert bench.server.log[0] == "enter {'work_mem': None}"
    assert trial.verdict is Verdict.ACCEPT
    assert trial.effect_log_ratio < 0


@pytest.mark.parametrize(
    ("earlier", "verdict"), [((), Verdict.REJECT), ((-0.1, -0.11, -0.1, -0.09), Verdict.ACCEPT)]
)
def test_a_probation_that_stays_unclear_asks_the_promotion(earlier, verdict):
    gate = GateSettings(min_blocks=3, max_blocks=4)
    made = plan(TrialKind.PROBATION, gate=gate, earlier_log_ratios=earlier)
    bench = Bench(made, effect=1.08)
    bench.server.slow = lambda at_s: 1 + 0.1 * math.sin(at_s * 0.1)
    trial = bench.run()
    assert len(trial.block_log_ratios) == 4
    assert trial.record().ci_high > 0
    assert trial.verdict is verdict


def test_only_a_probation_asks_the_promotion():
    trial = Bench(plan(earlier_log_ratios=(-0.3,) * 20), effect=1.0).run()
    assert trial.verdict is Verdict.REJECT


def test_the_blocks_of_a_promotion_are_what_its_probation_is_given():
    trial = Bench(plan(), effect=0.75).run()
    assert trial.block_log_ratios == trial.record().block_log_ratios
    assert trial.block_log_ratios == pytest.approx([math.log(0.75)] * 4, abs=0.01)


def test_probation_undoes_what_got_worse():
    gate = GateSettings(min_blocks=3, max_blocks=4)
    bench = Bench(plan(TrialKind.PROBATION, gate=gate), effect=0.7)
    trial = bench.run()
    assert trial.verdict is Verdict.REJECT
    assert "proven worse" in trial.reasons[0]


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [(1.4, Verdict.ACCEPT), (0.7, Verdict.REJECT)],
)
def test_the_final_comparison_takes_all_its_blocks(effect, verdict):
    gate = GateSettings(min_blocks=3, max_blocks=5)
    bench = Bench(plan(TrialKind.FINAL, gate=gate), effect=effect)
    trial = bench.run()
    assert len(bench.order) == 20
    assert trial.verdict is verdict
    record = trial.record()
    assert (record.blocks, record.max_blocks, record.confidence) == (5, 5, 0.95)
    assert record.effect == pytest.approx(1 / effect - 1, abs=0.02)


def test_arms_of_which_nothing_differs_end_inconclusive():
    gate = GateSettings(min_blocks=3, max_blocks=4)
    bench = Bench(plan(TrialKind.FINAL, gate=gate, after={}, other_values={}), effect=1.0)
    bench.server.slow = lambda at_s: 1 + 0.02 * math.sin(at_s * 12.9898)
    assert bench.run().verdict is Verdict.INCONCLUSIVE


def test_no_window_is_measured_while_a_switch_settles():
    bench = Bench(plan(TrialKind.PROBE))
    # What runs within the settling time of the candidate is terribly slow.
    entered: list[float] = []
    enter = bench.server.enter

    def watched(values, trial_id):
        entered.append(bench.clock.monotonic_s())
        return enter(values, trial_id)

    bench.server.enter = watched
    bench.server.slow = lambda at_s: (
        100.0 if entered and entered[0] <= at_s < entered[0] + SETTLE_S else 1.0
    )
    trial = bench.run()
    assert trial.effect_log_ratio == pytest.approx(0.0, abs=0.01)


def test_a_restart_settles_longer():
    short, long = Bench(plan(TrialKind.PROBE)), Bench(plan(TrialKind.PROBE, needs_restart=True))
    short.run()
    long.run()
    # Two switches, each 10 s in place of 2 s.
    difference = long.clock.monotonic_s() - short.clock.monotonic_s()
    assert difference == pytest.approx(16, abs=1)


def test_ticks_that_come_late_do_no_harm():
    bench = Bench(plan(), effect=0.75)
    assert bench.run(step_s=7.3).verdict is Verdict.ACCEPT


def test_nothing_happens_after_the_end():
    bench = Bench(plan(TrialKind.PROBE))
    trial = bench.run()
    before = (len(bench.measured), list(bench.server.log), trial.verdict)
    for _ in range(100):
        bench.tick()
    trial.abort("too late")
    assert (len(bench.measured), bench.server.log, trial.verdict) == before


# -- aborts and exceptions --------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(TrialKind))
def test_an_abort_at_any_moment_ends_with_the_deployed_arm(kind):
    whole = Bench(plan(kind), effect=0.9)
    whole.run()
    ticks = len(whole.progress)
    for stop in range(0, ticks - 1, max(ticks // 25, 1)):
        bench = Bench(plan(kind), effect=0.9)
        for _ in range(stop):
            bench.tick()
        bench.trial.abort("an operator acts")
        bench.check_end()
        assert bench.trial.verdict is Verdict.ABORTED
        assert bench.trial.reasons == ("an operator acts",)


@pytest.mark.parametrize("operation", ["enter", "leave", "collect"])
@pytest.mark.parametrize("error", [AdjustmentError("no"), ServerConnectionError("gone")])
@pytest.mark.parametrize("kind", [TrialKind.PROMOTION, TrialKind.PROBATION])
def test_an_error_passes_through_and_the_trial_can_go_on(operation, error, kind):
    bench = Bench(plan(kind, gate=GateSettings(min_blocks=3, max_blocks=4)), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2)
    bench.server.fail[operation] = [error]
    raised = 0
    while not bench.trial.finished:
        try:
            bench.tick()
        except type(error):
            raised += 1
    bench.check_end()
    assert raised == 1
    expected = Verdict.ACCEPT if kind is TrialKind.PROMOTION else Verdict.REJECT
    assert bench.trial.verdict is expected


@pytest.mark.parametrize("operation", ["enter", "leave", "collect"])
def test_an_error_followed_by_an_abort_ends_with_the_deployed_arm(operation):
    bench = Bench(plan(), effect=0.75)
    bench.server.fail[operation] = [AdjustmentError("no")]
    while True:
        try:
            bench.tick()
        except AdjustmentError:
            break
    bench.trial.abort("the change was not made")
    bench.check_end()
    assert bench.trial.verdict is Verdict.ABORTED


def _verdict_with_a_stubborn_arm(bench: Bench, errors: int) -> int:
    """Let leaving the arm fail at the trial's end; how often tick() raised."""
    whole = Bench(bench.trial.plan, effect=bench.server.effect)
    whole.run()
    leaves = whole.server.log.count("leave")
    leave = bench.server.leave
    left = 0

    def stubborn(batch_id: str, reason: str) -> None:
        nonlocal left, errors
        if left == leaves - 1 and errors > 0:
            errors -= 1
            raise AdjustmentError("not now")
        leave(batch_id, reason)
        left += 1

    bench.server.leave = stubborn
    raised = 0
    while not bench.trial.finished:
        assert bench.clock.monotonic_s() < 20_000
        try:
            bench.tick()
        except AdjustmentError:
            raised += 1
    return raised


def _seed_that_ends_in_the_other_arm() -> int:
    for seed in range(50):
        bench = Bench(plan(seed=seed), effect=0.75)
        bench.run()
        if bench.order.endswith("CIIC"):
            return seed
    raise AssertionError("no such seed")


@pytest.mark.parametrize("errors", [1, 3])
def test_a_verdict_outlives_an_arm_that_cannot_be_left_at_once(errors):
    """The last block ends under the candidate and taking it off fails: tried again, kept."""
    bench = Bench(plan(seed=_seed_that_ends_in_the_other_arm()), effect=0.75)
    assert _verdict_with_a_stubborn_arm(bench, errors) == errors
    bench.check_end()
    assert bench.trial.verdict is Verdict.ACCEPT
    assert len(bench.order) == 16


def test_an_abort_whose_rollback_fails_is_carried_out_by_the_next_tick():
    bench = Bench(plan(TrialKind.PROBE))
    bench.run_until(lambda: bench.server.other_stands)
    bench.server.fail["leave"] = [AdjustmentError("not now")]
    with pytest.raises(AdjustmentError):
        bench.trial.abort("an operator acts")
    assert not bench.trial.finished
    bench.tick()
    bench.check_end()
    assert bench.trial.verdict is Verdict.ABORTED


# -- void windows ---------------------------------------------------------------------------


@pytest.mark.parametrize("mishap", ["reset_statistics", "reload_by_somebody"])
def test_a_spoilt_window_is_void_and_repeated(mishap):
    bench = Bench(plan(), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2 and bench.trial.measuring)
    getattr(bench.server, mishap)()
    trial = bench.run()
    # The void window was never told as measured, and the order of the block is unbroken.
    assert len(bench.order) == 16
    assert {bench.order[i : i + 4] for i in range(0, 16, 4)} <= {"ICCI", "CIIC"}
    assert trial.verdict is Verdict.ACCEPT


def test_a_restart_of_the_server_voids_the_window():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    bench.run_until(lambda: bench.trial.measuring)
    bench.server.reset_statistics()
    bench.server.started_at = bench.server.reset_at
    assert bench.run().verdict is Verdict.ACCEPT
    assert bench.order == "ICI"


def test_windows_that_are_void_again_and_again_end_the_trial():
    bench = Bench(plan())
    while not bench.trial.finished:
        assert bench.clock.monotonic_s() < 20_000
        bench.tick()
        if bench.trial.measuring:
            bench.server.reload_by_somebody()
    bench.check_end()
    assert bench.trial.verdict is Verdict.INCONCLUSIVE
    assert f"{MAX_VOID_WINDOWS} windows in a row were void" in bench.trial.reasons[0]
    assert "reloaded" in bench.trial.reasons[1]
    assert bench.measured == []


def test_an_idle_server_ends_inconclusive():
    bench = Bench(plan(TrialKind.PROBE))
    bench.server.load = lambda at_s: 0.0
    trial = bench.run()
    assert trial.verdict is Verdict.INCONCLUSIVE
    assert "no statement ran" in trial.reasons[1]


# -- loads that move --------------------------------------------------------------------------


def _contended(server: Server, load: Callable[[float], float]) -> None:
    """Twice the load makes every statement take 1.8 times as long."""
    server.load = load
    server.slow = lambda at_s: 1 + 0.8 * (load(at_s) - 1)


@pytest.mark.parametrize("kind", [TrialKind.PROBE, TrialKind.PROMOTION])
@pytest.mark.parametrize("effect", [0.75, 1.0])
@pytest.mark.parametrize("start_s", range(5, 60, 7))
def test_a_load_that_doubles_for_a_while_never_yields_a_wrong_verdict(kind, effect, start_s):
    # A second or two of a swing at a window's edge go unnoticed: promising is what goes beyond.
    bench = Bench(plan(kind, promising_below=-0.12), effect)
    _contended(bench.server, lambda at_s: 2.0 if start_s <= at_s < start_s + 25 else 1.0)
    trial = bench.run()
    right = Verdict.ACCEPT if effect < 1 else Verdict.REJECT
    assert trial.verdict in (right, Verdict.INCONCLUSIVE)
    if kind is TrialKind.PROBE and start_s < 30:
        assert any(m.quality.value < 0.3 for m in bench.measured)
    if trial.effect_log_ratio is not None:
        assert trial.effect_log_ratio == pytest.approx(math.log(effect), abs=0.12)


@pytest.mark.parametrize("start_s", range(5, 110, 11))
def test_a_load_that_doubles_for_good_does_not_end_the_trial(start_s):
    """The new level is as good as the old one: only the block of the change is lost."""
    bench = Bench(plan(), effect=0.75)
    _contended(bench.server, lambda at_s: 2.0 if at_s >= start_s else 1.0)
    trial = bench.run()
    assert trial.verdict is Verdict.ACCEPT
    assert trial.effect_log_ratio == pytest.approx(math.log(0.75), abs=0.05)


@pytest.mark.parametrize("kind", list(TrialKind))
@pytest.mark.parametrize("period_s", [15.0, 20.0, 24.0, 40.0, 70.0])
def test_a_load_that_swings_for_ever_ends_every_trial(kind, period_s):
    bench = Bench(plan(kind, gate=GateSettings(max_blocks=8)), effect=1.0)
    _contended(bench.server, lambda at_s: 2.5 if at_s % period_s < period_s / 2 else 1.0)
    trial = bench.run(limit_s=3000)
    if trial.plan.deployed is Arm.INCUMBENT:
        assert trial.verdict in (Verdict.REJECT, Verdict.INCONCLUSIVE)


def test_a_spoilt_pair_is_begun_anew():
    bench = Bench(plan(), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2)
    now_s = bench.clock.monotonic_s()
    # Too much load through the whole third window, and the old one again in the fourth.
    _contended(bench.server, lambda at_s: 3.0 if now_s <= at_s < now_s + 11 else 1.0)
    trial = bench.run()
    assert trial.verdict is Verdict.ACCEPT
    blocks = trial.record().blocks
    assert len(trial.windows(Arm.CANDIDATE)) == len(trial.windows(Arm.INCUMBENT)) == 2 * blocks
    # Of the block one window was lost; the one that lay apart from it began the pair anew.
    assert len(bench.measured) == 4 * blocks + 1
    assert [m.quality.value < 0.3 for m in bench.measured].index(True) == 3


def test_between_two_pairs_of_a_block_the_load_may_move():
    bench = Bench(plan(), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2)
    now_s = bench.clock.monotonic_s()
    _contended(bench.server, lambda at_s: 2.0 if at_s >= now_s else 1.0)
    trial = bench.run()
    assert len(bench.measured) == 16
    assert all(m.quality.value > 0.9 for m in bench.measured)
    assert trial.effect_log_ratio == pytest.approx(math.log(0.75), abs=0.01)


def test_a_probe_whose_last_window_lies_apart_goes_on_from_there():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2)
    now_s = bench.clock.monotonic_s()
    _contended(bench.server, lambda at_s: 2.0 if at_s >= now_s else 1.0)
    trial = bench.run()
    assert bench.order == "ICICI"
    assert trial.verdict is Verdict.ACCEPT
    assert trial.effect_log_ratio == pytest.approx(math.log(0.75), abs=0.01)


def _shares(**more: tuple[int, float]) -> Reference:
    """The reference of the usual classes and of some others, by number."""
    classes = {n: (int(100 * rate), ms) for n, (rate, ms) in CLASSES.items()}
    return Reference.from_windows([window({**classes, **{int(n[1:]): v for n, v in more.items()}})])


def test_a_batch_job_that_rests_during_the_trial_keeps_nobody_waiting():
    shares = _shares(c3=(10, 400.0))
    assert 0.05 < shares.time_share(key(3)) < 0.2
    assert Bench(plan(shares=shares), effect=0.75).run().verdict is Verdict.ACCEPT


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, Verdict.ACCEPT), (3.0, Verdict.INCONCLUSIVE)]
)
def test_a_rare_batch_stands_in_the_way_only_where_it_was_slower(factor, verdict):
    bench = Bench(plan(shares=_shares(c3=(10, 400.0)), filtered=False), effect=0.75)
    bench.server.batch_at_s = (4.0, 21.0)  # in the first block, in windows of both arms
    bench.server.batch_factor = factor
    trial = bench.run()
    assert bench.order[:2] in ("CI", "IC")
    assert trial.verdict is verdict


def test_a_class_that_stops_under_the_candidate_is_not_taken_for_one_that_rests():
    # Unfiltered: else the other mix voids every pair.
    bench = Bench(plan(gate=GateSettings(min_coverage=0.1), filtered=False), effect=0.75)
    bench.server.stopped = {2}
    trial = bench.run()
    assert trial.verdict is Verdict.INCONCLUSIVE
    assert "ran too seldom" in trial.reasons[-1]


def test_without_the_filter_every_window_counts():
    """The same swing as filtered trials see: nothing is repeated, and the effect is off."""
    found = {}
    for filtered in (True, False):
        bench = Bench(plan(TrialKind.PROBE, filtered=filtered), effect=0.75)
        _contended(bench.server, lambda at_s: 2.0 if at_s >= 12 else 1.0)
        trial = bench.run()
        found[filtered] = trial.effect_log_ratio
        if not filtered:
            assert bench.order == "ICI"
            assert all(m.quality.value == 1 for m in bench.measured)
    assert found[True] == pytest.approx(math.log(0.75), abs=0.01)
    assert abs(found[False] - math.log(0.75)) > 0.1


# -- statements that straddle a switch ---------------------------------------------------------


def test_a_statement_that_straddles_a_switch_is_waited_for():
    bench = Bench(plan(TrialKind.PROBE))
    bench.run_until(lambda: bench.server.other_stands)
    bench.server.oldest_began_s = bench.clock.monotonic_s() - 5
    switched_s = bench.clock.monotonic_s()
    while bench.clock.monotonic_s() < switched_s + 20:
        bench.tick()
        assert not bench.trial.measuring
    bench.server.oldest_began_s = None
    bench.run_until(lambda: bench.trial.measuring)
    assert bench.clock.monotonic_s() < switched_s + 22
    bench.run()
    assert bench.order == "ICI"


def test_a_statement_that_began_after_the_switch_is_not_waited_for():
    bench = Bench(plan(TrialKind.PROBE))
    bench.run_until(lambda: bench.server.other_stands)
    switched_s = bench.clock.monotonic_s()
    bench.server.oldest_began_s = switched_s + 0.5
    bench.run_until(lambda: bench.trial.measuring)
    assert bench.clock.monotonic_s() <= switched_s + SETTLE_S + 1


@pytest.mark.parametrize("kind", list(TrialKind))
def test_a_statement_that_never_ends_ends_the_trial(kind):
    """What runs across the switch belongs to neither arm, however long it is waited for."""
    bench = Bench(plan(kind))
    bench.server.oldest_began_s = -1000.0
    trial = bench.run()
    assert trial.verdict is Verdict.INCONCLUSIVE
    assert "began before the switch still runs after 60 s" in trial.reasons[0]
    first = "I" if trial.plan.deployed is Arm.INCUMBENT else "C"
    assert bench.order in ("", first, 2 * first)  # nothing was measured after the first switch
    assert bench.clock.monotonic_s() < MAX_STRADDLE_S + SETTLE_S + 2 * WINDOW_S + 10


def test_a_statement_that_ends_just_in_time_leaves_the_trial_whole():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    bench.run_until(lambda: bench.server.other_stands)
    switched_s = bench.clock.monotonic_s()
    bench.server.oldest_began_s = switched_s - 5
    bench.run_until(lambda: bench.clock.monotonic_s() > switched_s + MAX_STRADDLE_S - 1)
    bench.server.oldest_began_s = None
    assert bench.run().verdict is Verdict.ACCEPT


# -- safety ---------------------------------------------------------------------------------


def test_the_safety_monitor_ends_a_trial_at_once():
    bench = Bench(plan(TrialKind.PROBE), effect=3.0)
    bench.safety = lambda ratio: SafetyVerdict(SafetyAction.ROLLBACK, ("far too slow",))
    trial = bench.run()
    assert bench.order == "IC"
    assert trial.verdict is Verdict.REJECT
    assert trial.reasons == ("stopped by the safety monitor", "far too slow")
    assert bench.server.log[-1] == "leave"
    assert trial.stopped_log_ratio == pytest.approx(math.log(3), abs=0.03)


def test_the_safety_monitor_sees_candidates_only_with_their_ratio():
    bench = Bench(plan(seed=_seed_that_ends_in_the_other_arm()), effect=1.2)
    bench.run()
    assert len(bench.judged) == bench.order.count("C")
    assert all(ratio == pytest.approx(math.log(1.2), abs=0.03) for ratio in bench.judged)


def _begins_with_the_candidate(kind: TrialKind) -> TrialPlan:
    made = (plan(kind, seed=seed) for seed in range(50))
    return next(p for p in made if p.block(random.Random(p.seed))[0] is Arm.CANDIDATE)


@pytest.mark.parametrize(("effect", "verdict"), [(2.0, Verdict.REJECT), (0.75, Verdict.ACCEPT)])
def test_a_first_window_under_the_candidate_is_judged_against_the_reference(effect, verdict):
    """There is no incumbent window yet: it goes at once, but nothing is proven before there is."""
    bench = Bench(_begins_with_the_candidate(TrialKind.PROMOTION), effect)
    bench.safety = _rolls_back_what_is_slower
    # Everything takes longer than in the reference: the load is another one by now.
    bench.server.slow = lambda at_s: 2.0
    trial = bench.run()
    assert bench.order.startswith("CI")
    ratios = [ratio for ratio in bench.judged if ratio is not None]
    assert ratios[0] == pytest.approx(math.log(2 * effect), abs=0.03)
    assert ratios[1] == pytest.approx(math.log(effect), abs=0.03)
    assert trial.verdict is verdict


def test_more_load_excuses_a_candidate_only_a_few_times():
    bench = Bench(plan(gate=GateSettings(min_blocks=8, max_blocks=8)), effect=1.5)
    bench.safety = _rolls_back_what_is_slower
    # More load whenever the candidate stands: so it may always be the load.
    bench.server.load = lambda at_s: 2.0 if bench.server.other_stands else 1.0
    trial = bench.run()
    assert trial.verdict is Verdict.INCONCLUSIVE
    assert trial.reasons[-1] == "the load had risen, or was disturbed"
    assert bench.order.count("C") == MAX_EXCUSES + 1
    # Each time the candidate went at once.
    assert "CC" not in bench.order


def test_a_first_window_that_is_dangerous_for_other_reasons_is_rejected():
    bench = Bench(_begins_with_the_candidate(TrialKind.PROMOTION), effect=2.0)
    bench.safety = lambda ratio: SafetyVerdict(SafetyAction.ROLLBACK, ("errors",))
    assert bench.run().verdict is Verdict.REJECT
    assert bench.order == "C"


@pytest.mark.parametrize("kind", [TrialKind.PROBATION, TrialKind.FINAL])
def test_what_stands_already_is_not_judged_against_an_old_reference(kind):
    """Stopping the trial would take nothing off; the load may have moved since."""
    gate = GateSettings(min_blocks=3, max_blocks=4)
    bench = Bench(replace(_begins_with_the_candidate(kind), gate=gate), effect=1.4)
    bench.safety = _rolls_back_what_is_slower
    bench.server.slow = lambda at_s: 1.5
    assert bench.run().verdict is Verdict.ACCEPT
    if kind is TrialKind.FINAL:
        assert not bench.judged  # it measures what stands to its end
    else:
        assert bench.judged[0] is None


def test_a_block_of_the_monitor_does_not_end_a_trial():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    bench.safety = lambda ratio: SafetyVerdict(SafetyAction.BLOCK, ("busy",))
    assert bench.run().verdict is Verdict.ACCEPT


def _rolls_back_what_is_slower(ratio: float | None) -> SafetyVerdict:
    if ratio is not None and ratio > math.log(1.15):
        return SafetyVerdict(SafetyAction.ROLLBACK, ("slower",))
    return ALLOW


@pytest.mark.parametrize("start_s", range(5, 80, 5))
def test_more_load_under_the_candidate_rolls_back_but_proves_nothing(start_s):
    """The load doubles while a harmless candidate stands: taken off, yet not called worse."""
    bench = Bench(plan(), effect=0.75)
    bench.safety = _rolls_back_what_is_slower
    _contended(bench.server, lambda at_s: 2.0 if at_s >= start_s else 1.0)
    trial = bench.run()
    assert trial.verdict in (Verdict.ACCEPT, Verdict.INCONCLUSIVE)


def test_a_candidate_that_chokes_its_clients_is_rejected():
    """Clients that wait for answers send less when it is slow: less load is no excuse."""
    bench = Bench(plan(TrialKind.PROBE), effect=4.0)
    bench.safety = _rolls_back_what_is_slower
    bench.server.load = lambda at_s: 0.25 if bench.server.other_stands else 1.0
    trial = bench.run()
    assert trial.verdict is Verdict.REJECT
    assert "slower" in trial.reasons


# -- the record -------------------------------------------------------------------------------


def test_the_record_before_the_first_window():
    record = Bench(plan(), record_id=None).trial.record()
    assert record.id is None
    assert record.state is TrialState.APPLYING
    assert (record.blocks, record.max_blocks, record.progress) == (0, 8, 0.0)
    assert record.effect is record.ci_low is record.ci_high is record.verdict is None
    assert record.class_effects == {}


def test_the_record_of_a_promotion():
    bench = Bench(plan(), effect=0.75)
    trial = bench.run()
    record = trial.record()
    assert (record.id, record.kind, record.proposer) == (7, TrialKind.PROMOTION, "agent")
    assert (record.before, record.after) == ({"work_mem": 4096}, {"work_mem": 65536})
    assert record.created_at == START
    assert record.finished_at == trial.finished_at > START
    assert record.verdict is Verdict.ACCEPT
    assert (record.blocks, record.max_blocks, record.progress) == (4, 8, 1.0)
    assert len(record.block_log_ratios) == 4
    assert record.effect == pytest.approx(-0.25, abs=0.01)
    assert record.ci_low <= record.effect <= record.ci_high < 0
    assert record.confidence == pytest.approx(1 - 2 * 0.05 / 5)
    assert record.coverage == pytest.approx(1.0)
    assert 0.9 < record.quality <= 1
    assert not record.needs_restart
    assert set(record.class_effects) == {str(key(1)), str(key(2))}
    for effect in record.class_effects.values():
        assert effect["effect"] == pytest.approx(-0.25, abs=0.01)
        assert effect["candidate_ms"] < effect["incumbent_ms"]
        assert 0 < effect["time_share"] < 1
        assert effect["ci_low"] <= effect["effect"] <= effect["ci_high"]
    assert trial.block_spread == pytest.approx(0.0, abs=0.01)


def test_the_record_of_a_probe_claims_no_interval():
    record = Bench(plan(TrialKind.PROBE), effect=0.75).run().record()
    assert record.effect == pytest.approx(-0.25, abs=0.01)
    assert record.ci_low is record.ci_high is None


def test_progress_never_falls_though_blocks_are_begun_anew():
    bench = Bench(plan(), effect=1.0)
    _contended(bench.server, lambda at_s: 2.5 if at_s % 47 < 12 else 1.0)
    bench.run(limit_s=3000)
    assert any(m.quality.value < 0.3 for m in bench.measured)


# -- on the simulated database ------------------------------------------------------------------


def _simulated(values, seed: int, kind: TrialKind = TrialKind.PROMOTION, **load) -> Trial:
    """A promotion on the simulated database with its own noise."""
    clock = ManualClock(START)
    target = SimulatedDatabase(clock=clock, noise=Noise(), load=LoadScript(**load), seed=seed)
    first = target.snapshot()
    clock.advance(120)
    baseline = window_between(first, target.snapshot())

    class Switch:
        def enter(self, entries, trial_id):
            target.write_entries(entries)
            target.reload()
            return "batch"

        def leave(self, batch_id, reason):
            target.write_entries(dict.fromkeys(values))
            target.reload()

    made = plan(
        kind, after=values, other_values=values, before={},
        shares=Reference.from_windows([baseline]), seed=seed,
    )  # fmt: skip
    trial = Trial(
        made,
        collect=target.snapshot,
        switch=Switch(),
        clock=clock,
        on_window=lambda measured: None,
        judge_safety=lambda found, incumbent, ratio: ALLOW,
    )
    while not trial.finished:
        trial.tick()
        clock.advance(0.5)
    assert target.effective_config == target.space.default_config()
    return trial


@pytest.mark.parametrize("seed", range(5))
def test_a_real_gain_is_promoted_on_the_simulated_database(seed):
    target = SimulatedDatabase()
    best = {
        name: value
        for name, value in target.best_config.items()
        if target.space[name].context != "restart"
    }
    truth = target.index_of(target.space.default_config().replace(best))
    assert truth < 0.8
    trial = _simulated(best, seed)
    assert trial.verdict is Verdict.ACCEPT
    assert math.exp(trial.effect_log_ratio) == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("swing", [0.0, 0.3])
def test_nothing_to_gain_is_not_promoted_on_the_simulated_database(swing):
    """A/A: the candidate is what stands already. Of 30 trials 1.5 may pass by chance."""
    same = {"work_mem": 4096}
    found = [_simulated(same, 100 + seed, swing=swing).verdict for seed in range(30)]
    assert found.count(Verdict.ACCEPT) <= 2
