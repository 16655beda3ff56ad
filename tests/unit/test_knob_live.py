"""The arithmetic, the records and the rules of the live comparison, without a server."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sqlalchemy.engine import make_url

from backend.catalog.knobs import load_catalog
from backend.domain.clock import ManualClock
from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from backend.domain.server import HostFacts
from backend.errors import ConfigError, KnobBoundsError, ServerError, WorkloadError
from backend.memory_budget import MemoryBudget
from backend.sample_filter import Reference
from benchmarks import knob_live
from benchmarks.harness.command_line import TimeLimit
from benchmarks.harness.offers import LoadCounts, PgbenchOffer, StoreOffer
from benchmarks.harness.pgbench import after_line, pgbench_command
from benchmarks.harness.windows import Measured
from benchmarks.live import comparison, course, methods, tuning
from benchmarks.live.arithmetic import (
    NOTHING,
    best_of,
    cumulative_regret,
    difference_interval,
    gain_interval,
    is_harmful,
    mean_interval,
    regret_so_far,
    spread,
    stratified_interval,
)
from benchmarks.live.pgtune import advice, rules
from benchmarks.live.records import Comparison, Evaluation, Part, Protocol, Results
from benchmarks.live.report import ALL, cells, lines, table
from benchmarks.live.tuning import CENSORED_FROM, MethodRun, Outcome, best_measured, judge
from benchmarks.live.workloads import description
from tests.windows import window

GIB = 1024**3
PROTOCOL = Protocol(
    minutes=1.0,
    window_s=10.0,
    warm_up_s=15.0,
    scale=0.25,
    rate_per_s=32.0,
    clients=8,
    statement_timeout_s=10.0,
    memory_limit_gb=2.0,
    allow_restart=False,
    knobs="0123",
    cores=2,
    memory_gb=24,
    server_version=170010,
)


def evaluation(number: int, objective: float, **changed: Any) -> Evaluation:
    return Evaluation(
        number=number,
        at_s=25.0 * number,
        objective=objective,
        effect=objective - 1,
        regret=0.0,
        harmful=is_harmful(objective),
        censored=False,
        clamped=False,
        quality=1.0,
        coverage=1.0,
        drift=0.01,
        ask_s=0.1,
        tell_s=0.1,
        changes={"work_mem": 1000 + number},
        **changed,
    )


def part(
    method: str,
    objectives: tuple[float, ...] = (),
    final: Mapping[str, KnobValue] | None = None,
    seed: int = 0,
) -> Part:
    return Part(
        workload="mixed",
        seed=seed,
        method=method,
        finished_at="2026-01-01T00:00:00+00:00",
        protocol=PROTOCOL,
        evaluations=tuple(evaluation(k + 1, value) for k, value in enumerate(objectives)),
        final=dict(final or {}),
        final_objective=min(objectives, default=None),
        clamped=0,
        refused=0,
        violations=[],
        durability=[],
        omitted={},
    )


def compared(ratios: Mapping[str, list[float | None]], seed: int = 0, **finals: Any) -> Comparison:
    """A comparison of these ratios (not their logarithms), block by block."""
    count = len(next(iter(ratios.values())))
    logs = {m: [None if r is None else math.log(r) for r in found] for m, found in ratios.items()}
    return Comparison(
        workload="mixed",
        seed=seed,
        finished_at="2026-01-01T00:00:00+00:00",
        protocol=PROTOCOL,
        finals={method: finals.get(method.replace("-", "_"), {}) for method in ratios},
        blocks=tuple({m: found[k] for m, found in logs.items()} for k in range(count)),
        violations=[],
        durability=[],
    )


# -- arithmetic -----------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_students() -> None:
    values = [0.30, 0.34, 0.28, 0.33, 0.31, 0.30]
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 5, loc=np.mean(values), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert found.blocks == 6


def test_one_block_has_no_interval_and_none_has_no_mean() -> None:
    one = mean_interval([0.2])
    assert one.value == 0.2
    assert (one.low, one.high) == (-math.inf, math.inf)
    assert str(one) == "+0.200"
    assert mean_interval([]) is NOTHING
    assert str(NOTHING) == "-"


def test_strata_count_alike_whatever_their_size() -> None:
    found = stratified_interval([[0.1, 0.1], [0.4, 0.4, 0.4, 0.4]])
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


def test_the_strata_interval_is_that_of_welch() -> None:
    a, b = [0.10, 0.16, 0.13], [0.40, 0.44, 0.36, 0.48]
    found = stratified_interval([a, b])
    parts = [np.var(v, ddof=1) / len(v) for v in (a, b)]
    freedom = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (a, b), strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts)) / 2
    assert found.value == pytest.approx((np.mean(a) + np.mean(b)) / 2)
    assert found.high - found.value == pytest.approx(half)


def test_a_stratum_of_one_block_leaves_the_error_unknown() -> None:
    found = stratified_interval([[0.1, 0.2], [0.3]])
    assert found.value == pytest.approx(0.225)
    assert found.high == math.inf


def test_a_gain_is_one_minus_the_geometric_mean_of_the_ratios() -> None:
    logs = [math.log(0.5), None, math.log(0.6), math.log(0.55)]
    found = gain_interval([logs])
    known = [value for value in logs if value is not None]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(known), scale=stats.sem(known))
    assert found.value == pytest.approx(1 - (0.5 * 0.6 * 0.55) ** (1 / 3))
    assert (found.low, found.high) == pytest.approx((1 - math.exp(high), 1 - math.exp(low)))
    assert found.blocks == 3
    assert gain_interval([[None]]) is NOTHING


def test_a_difference_is_positive_where_ours_is_faster() -> None:
    found = difference_interval([([math.log(0.5)] * 3, [math.log(0.9)] * 3)])
    assert (found.low, found.value, found.high) == pytest.approx((0.4, 0.4, 0.4))


def test_a_difference_is_the_difference_of_the_gains() -> None:
    ours = [math.log(v) for v in (0.5, 0.61, 0.52)]
    peer = [math.log(v) for v in (0.7, 0.66, 0.8)]
    found = difference_interval([(ours, peer)])
    assert found.value == pytest.approx(gain_interval([ours]).value - gain_interval([peer]).value)
    assert found.low < found.value < found.high


def test_the_noise_of_the_defaults_is_not_in_a_difference() -> None:
    noise = [-0.3, 0.2, 0.4, -0.1]
    found = difference_interval([([n - 0.5 for n in noise], [n - 0.4 for n in noise])])
    assert found.high - found.low == pytest.approx(0.0, abs=1e-12)


def test_a_difference_uses_blocks_that_hold_both() -> None:
    found = difference_interval([([math.log(0.5), None, 0.0], [math.log(0.7), 0.0, None])])
    assert found.value == pytest.approx(0.2)
    assert found.blocks == 1
    assert found.low == -math.inf  # one block: anything, but never faster than no time at all
    assert found.high == pytest.approx(0.7)


def test_regret_counts_from_the_best_known_by_then() -> None:
    assert regret_so_far([1.3, 0.8, 0.9, 0.7]) == pytest.approx([0.3, 0.0, 0.1, 0.0])


def test_cumulative_regret_counts_from_the_best_of_the_cell() -> None:
    assert cumulative_regret([1.3, 0.8, 0.55], 0.6) == pytest.approx(0.7 + 0.2 - 0.05)


@pytest.mark.parametrize(("objective", "harmful"), [(1.05, False), (1.0999, False), (1.11, True)])
def test_harm_begins_at_ten_per_cent(objective: float, harmful: bool) -> None:
    assert is_harmful(objective) is harmful


def test_the_best_leaves_out_what_is_unknown() -> None:
    assert best_of({"a": 0.1, "b": math.nan, "c": 0.3}) == "c"
    assert best_of({"b": math.nan}) is None
    assert spread([0.4]) == 0.0


# -- records and going on -------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written = Results(path)
    done = part("tpe", (1.2, 0.8), {"work_mem": 1002, "jit": False, "random_page_cost": 1.1})
    for trial in done.evaluations:
        written.add_evaluation("run", trial)
    written.add_part("run", done)
    both = compared({"tpe": [0.8, 0.82], "defaults": [1.0, 1.0]}, tpe=done.final)
    written.add_comparison(both)

    found = Results(path)
    assert found.parts == {("mixed", 0, "tpe"): done}
    assert found.comparisons == {("mixed", 0): both}


def test_trials_of_a_part_that_was_cut_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    cut = Results(path)
    cut.add_evaluation("first", evaluation(1, 0.5))
    again = Results(path)
    again.add_evaluation("second", evaluation(1, 0.9))
    again.add_part("second", part("tpe", (0.9,)))
    [found] = Results(path).parts.values()
    assert [e.objective for e in found.evaluations] == [0.9]


def test_a_line_that_was_cut_is_left_out_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = Results(path)
    results.add_part("a", part("defaults"))
    with path.open("a") as file:
        file.write('{"kind": "part", "method": "tp')
    reopened = Results(path)
    assert reopened.damaged_lines == 1
    reopened.add_part("b", part("pgtune"))
    found = Results(path)
    assert {key[2] for key in found.parts} == {"defaults", "pgtune"}
    assert found.damaged_lines == 1


@pytest.mark.parametrize("text", ['{"kind": "recipe"}', "[1]", '{"kind": "part", "run": "x"}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=r"no results file"):
        Results(path)


def test_other_rules_are_refused_and_named(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add_part("a", part("defaults"))
    results.check_protocol(PROTOCOL, "mixed")
    other = replace(PROTOCOL, minutes=20.0)
    results.check_protocol(other, "oltp")  # nothing of this workload is there yet
    with pytest.raises(ConfigError, match=r"minutes 1.0 instead of 20.0"):
        results.check_protocol(other, "mixed")


def test_a_comparison_is_stale_when_a_final_changes_or_a_method_joins() -> None:
    ours = part("ours", (0.8,), {"work_mem": 5})
    found = compared({"ours": [0.8] * 6}, ours={"work_mem": 5})
    assert found.covers({"ours": ours}, 6)
    assert not found.covers({"ours": ours}, 7)
    assert not found.covers({"ours": replace(ours, final={"work_mem": 6})}, 6)
    assert not found.covers({"ours": ours, "tpe": part("tpe")}, 6)


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
        live: Any, seed: int, parts: Mapping[str, Part], blocks: int, *_: Any
    ) -> Comparison:
        CountingRun.ran.append("comparison")
        CountingRun.clock.advance(300.0)
        finals = {method: dict(found.final) for method, found in parts.items()}
        made = compared({method: [1.0] * blocks for method in parts}, seed)
        return replace(made, finals=finals)

    monkeypatch.setattr(course, "MethodRun", CountingRun)
    monkeypatch.setattr(course, "compare", compare)
    monkeypatch.setattr(methods, "make", lambda name, seed, problem: f"tuner of seed {seed}")

    told: list[str] = []
    clock = ManualClock()
    monkeypatch.setattr(
        "benchmarks.harness.command_line.time", SimpleNamespace(monotonic=clock.monotonic_s)
    )
    CountingRun.clock = clock

    def run(
        *names: str, blocks: int = 6, seeds: tuple[int, ...] = (3,), minutes: float | None = None
    ) -> list[str]:
        CountingRun.ran = []
        told.clear()
        live: Any = SimpleNamespace(workload=SimpleNamespace(name="mixed"))
        results = Results(tmp_path / "results.jsonl")
        problem: Any = None
        limit = TimeLimit(minutes)
        course.Course(live, PROTOCOL, results, problem, blocks, limit, told.append).run(
            names, seeds
        )
        return CountingRun.ran

    return SimpleNamespace(run=run, told=told)


def test_finished_parts_are_skipped(cell_runner: Any) -> None:
    first = cell_runner.run("defaults", "tpe")
    assert first == ["defaults", "tpe: tuner of seed 3", "comparison"]
    assert cell_runner.run("defaults", "tpe") == []


def test_one_more_method_or_more_blocks_need_a_new_comparison(cell_runner: Any) -> None:
    cell_runner.run("defaults", "tpe")
    assert cell_runner.run("defaults", "tpe", "ours") == ["ours: tuner of seed 3", "comparison"]
    assert cell_runner.run("defaults", "tpe", "ours", blocks=8) == ["comparison"]
    assert cell_runner.run("defaults", "tpe", blocks=8) == []


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


# -- the rules of a trial -------------------------------------------------------------------------


def measured(mean_ms: float, calls: int = 100, timeouts: tuple[int, int] = (0, 0)) -> Measured:
    whole = window({1: (calls, mean_ms)}, 10.0)
    half = window({1: (calls // 2, mean_ms)}, 5.0)
    before, after = (LoadCounts(completed=1, timeouts=t) for t in timeouts)
    return Measured(whole, (half, half), before, after)


SHARES = Reference.from_windows([window({1: (300, 10.0)})])


def test_a_trial_is_judged_against_the_defaults_around_it() -> None:
    found = judge(measured(8.0), [measured(10.0), measured(14.0)], SHARES, 0, "")
    assert found.objective == pytest.approx(8.0 / 12.0)
    assert not found.censored
    assert found.quality == pytest.approx(1.0)
    assert found.coverage == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("candidate", "timeouts", "crash", "objective", "reason"),
    [
        (None, 0, "gone", CENSORED_FROM, "gone"),
        (measured(5.0), 2, "", CENSORED_FROM, "2 statements timed out"),
        (measured(30.0), 2, "", 3.0, "2 statements timed out"),
        (measured(5.0, calls=2), 0, "", CENSORED_FROM, "no statement came back"),
    ],
)
def test_a_crash_or_a_time_out_leaves_a_bound(
    candidate: Measured | None, timeouts: int, crash: str, objective: float, reason: str
) -> None:
    found = judge(candidate, [measured(10.0)], SHARES, timeouts, crash)
    assert found.censored
    assert found.objective == pytest.approx(objective)
    assert reason in found.reason


def test_a_pile_of_arrivals_is_the_configurations_fault_and_no_swing_of_the_load() -> None:
    slow = measured(40.0, calls=30)
    assert slow.quality(SHARES, measured(10.0)).value < 0.3
    piled = replace(slow, after=LoadCounts(backlog=True))
    assert piled.quality(SHARES, measured(10.0)).value == pytest.approx(1.0)


def test_the_final_configuration_is_the_best_by_its_own_measurements() -> None:
    defaults, a, b, c = (KnobConfig({"work_mem": value}) for value in (4, 5, 6, 7))
    tried = [
        (a, Outcome(0.7, 1, 1, False)),
        (a, Outcome(0.9, 1, 1, False)),
        (b, Outcome(0.78, 1, 1, False)),
        (c, Outcome(0.2, 1, 1, False)),
        (c, Outcome(1.15, 1, 1, True)),
        (defaults, Outcome(0.5, 1, 1, False)),
    ]
    assert best_measured(tried, defaults) == (b, pytest.approx(0.78))


def test_without_anything_better_the_defaults_stay() -> None:
    defaults, a = KnobConfig({"work_mem": 4}), KnobConfig({"work_mem": 5})
    assert best_measured([(a, Outcome(1.02, 1, 1, False))], defaults) == (defaults, 1.0)
    assert best_measured([], defaults) == (defaults, 1.0)


SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 2097151, "log", "kB", 4096),
        Knob("jit", "boolean", default=True),
    ]
)


def fake_live(memory_limit_gb: float = 2.0) -> Any:
    """The parts of a LiveServer that the rules look at."""
    budget = MemoryBudget(HostFacts(8 * GIB, 2.0), 8, memory_limit_gb)
    return SimpleNamespace(
        space=SPACE,
        defaults=SPACE.default_config(),
        standing=SPACE.default_config(),
        budget=budget,
        workload=SimpleNamespace(name="mixed"),
        violations=[],
        durability=[],
        forget=lambda: None,
    )


def test_a_proposal_over_the_budget_is_shrunk_and_counted() -> None:
    live = fake_live()
    wild = tuning.fit(live, {"work_mem": 2_000_000})
    assert wild.clamped
    live.budget.check(wild.config)
    assert wild.config["jit"] is True  # completed with the defaults
    assert not tuning.fit(live, {"work_mem": 8192}).clamped


class FakeTuner:
    """Asks for what it is given, remembers what it is told."""

    def __init__(self, proposals: list[Mapping[str, KnobValue]]) -> None:
        self._proposals = iter(proposals)
        self.told: list[tuple[Mapping[str, KnobValue], float, bool]] = []

    def ask(self, state: NDArray[np.float64] | None = None) -> KnobConfig:
        return KnobConfig(next(self._proposals))

    def tell(
        self,
        config: Mapping[str, KnobValue],
        objective: float,
        state: NDArray[np.float64] | None = None,
        quality: float = 1.0,
        censored: bool = False,
    ) -> None:
        self.told.append((config, objective, censored))


class FakeStage:
    """Answers with the objective of work_mem / 10000; a trial takes 20 s."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.defaults = measured(10.0)
        self.overrun = False

    def try_out(self, config: KnobConfig) -> Outcome:
        self._clock.advance(20.0)
        return Outcome(float(config["work_mem"]) / 10_000, 0.9, 1.0, False)


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    clock = ManualClock()
    monkeypatch.setattr(tuning, "time", SimpleNamespace(monotonic=clock.monotonic_s))

    @contextmanager
    def fake_stage(*_: Any) -> Iterator[FakeStage]:
        yield FakeStage(clock)

    monkeypatch.setattr(tuning, "stage", fake_stage)
    results = Results(tmp_path / "results.jsonl")

    def run(tuner: FakeTuner, minutes: float = 1.0) -> tuple[Part, Results]:
        protocol = replace(PROTOCOL, minutes=minutes)
        method = MethodRun(fake_live(), "random", 1, protocol, results, lambda _: None)
        done = method.tuned(tuner)
        method.finish(done)
        return done, Results(results.path)

    return run


def test_a_tuner_is_told_the_defaults_first_and_ends_with_its_time(tuned: Any) -> None:
    tuner = FakeTuner([{"work_mem": 9000}, {"work_mem": 12_000}, {"work_mem": 5000}])
    done, written = tuned(tuner)
    # Trials of 20 s in 60 s: the third begins at 40 s, when less than two windows are left.
    assert tuner.told[0] == (SPACE.default_config(), 1.0, False)
    assert [objective for _, objective, _ in tuner.told[1:]] == [0.9, 1.2]
    assert [e.harmful for e in done.evaluations] == [False, True]
    assert [e.regret for e in done.evaluations] == pytest.approx([0.0, 0.3])
    assert done.final == {"work_mem": 9000}
    assert written.parts[done.key] == done


def test_the_tuner_learns_what_was_tried_not_what_it_asked(tuned: Any) -> None:
    tuner = FakeTuner([{"work_mem": 2_000_000, "jit": False}] * 3)
    done, _ = tuned(tuner)
    config, _, _ = tuner.told[1]
    assert config["work_mem"] < 2_000_000
    assert config["jit"] is False
    assert done.clamped == 2
    assert all(e.clamped for e in done.evaluations)


def test_a_tuner_that_asks_nothing_but_nonsense_is_given_up(tuned: Any) -> None:
    done, _ = tuned(FakeTuner([{"work_mem": -5}] * 1000))
    assert done.refused == tuning.MAX_REFUSED
    assert not done.evaluations
    assert done.final == {}


# -- the comparison -------------------------------------------------------------------------------


class FakeServerSide:
    """Measures a configuration as slow as told, by its work_mem."""

    def __init__(self, mean_ms: Mapping[int, float | None], timeouts: int = 0) -> None:
        self._mean_ms, self._timeouts = mean_ms, timeouts
        self.shares = SHARES
        self.recovered = 0
        self.live = SimpleNamespace(recover=self._recover)

    def _recover(self) -> None:
        self.recovered += 1

    def measure(self, changes: Mapping[str, KnobValue]) -> Measured:
        mean_ms = self._mean_ms[int(changes.get("work_mem", 0))]
        if mean_ms is None:
            raise ServerError("crashed")
        return measured(mean_ms)

    def counts(self) -> LoadCounts:
        return LoadCounts(timeouts=self._timeouts)


A, B = KnobConfig({"work_mem": 1}), KnobConfig({"work_mem": 2})


def block_of(side: FakeServerSide, *order: KnobConfig) -> dict[KnobConfig, float] | None:
    running: Any = side
    return comparison._block(running, order)


def test_a_block_compares_each_configuration_with_its_own_defaults() -> None:
    side = FakeServerSide({0: 10.0, 1: 5.0, 2: 20.0})
    found = block_of(side, A, comparison.DEFAULTS, B)
    assert found == pytest.approx({A: math.log(0.5), B: math.log(2.0), comparison.DEFAULTS: 0.0})


def test_a_crash_in_a_block_counts_against_the_configuration() -> None:
    side = FakeServerSide({0: 10.0, 1: None, 2: 5.0})
    found = block_of(side, A, comparison.DEFAULTS, B)
    assert found is not None
    assert found[A] == pytest.approx(math.log(CENSORED_FROM))
    assert found[B] == pytest.approx(math.log(0.5))
    assert side.recovered == 1


def test_time_outs_count_against_the_configuration_they_began_under() -> None:
    side = FakeServerSide({0: 10.0, 1: 5.0, 2: 5.0}, timeouts=3)
    found = block_of(side, A, comparison.DEFAULTS, B)
    assert found is not None
    assert found[A] == pytest.approx(math.log(0.5))
    assert found[B] == pytest.approx(math.log(CENSORED_FROM))


def test_a_block_without_defaults_is_void() -> None:
    assert block_of(FakeServerSide({0: None, 1: 5.0}), A, comparison.DEFAULTS) is None


def test_lost_clients_end_the_comparison() -> None:
    side = FakeServerSide({0: 10.0})

    def gone(_: Mapping[str, KnobValue]) -> Measured:
        raise WorkloadError("the clients have ended")

    side.measure = gone  # type: ignore[method-assign]
    with pytest.raises(WorkloadError):
        block_of(side, comparison.DEFAULTS)


# -- PGTune's rules -------------------------------------------------------------------------------


def test_pgtunes_rules_for_a_mixed_server_of_16_gib_and_8_cores() -> None:
    found = rules("mixed", 16 * GIB, 8)
    assert found["shared_buffers"] == 4 * GIB
    assert found["effective_cache_size"] == 12 * GIB
    assert found["maintenance_work_mem"] == GIB
    assert found["work_mem"] == pytest.approx(12 * GIB / ((100 + 8) * 3) / 2)
    assert found["wal_buffers"] == 16 * 1024**2
    assert (found["min_wal_size"], found["max_wal_size"]) == (GIB, 4 * GIB)
    assert found["max_parallel_workers_per_gather"] == 4
    assert found["jit"] is False


def test_pgtunes_rules_for_a_warehouse() -> None:
    found = rules("dw", 64 * GIB, 32)
    assert found["maintenance_work_mem"] == 8 * GIB
    assert found["autovacuum_work_mem"] == 2 * GIB
    assert found["default_statistics_target"] == 500
    assert found["max_parallel_workers_per_gather"] == 16
    assert found["autovacuum_max_workers"] == 5
    assert "jit" not in found


def test_pgtune_leaves_parallelism_alone_below_four_cores() -> None:
    found = rules("oltp", 2 * GIB, 2)
    assert "max_parallel_workers" not in found
    assert found["work_mem"] == pytest.approx(max(1.5 * GIB / ((300 + 8) * 3), 4 * 1024**2))


def test_pgtune_here_says_what_it_leaves_out() -> None:
    host = HostFacts(16 * GIB, 8.0)
    found = advice(
        "mixed",
        host,
        load_catalog(170010, host),
        allow_restart=False,
        offered_choices={"wal_compression": ("off", "pglz")},
    )
    assert found.values["random_page_cost"] == 1.1
    assert found.values["effective_cache_size"] == 12 * GIB // 8192
    assert found.values["work_mem"] == int(12 * GIB / ((100 + 8) * 3) / 2 / 1024)
    assert found.values["max_wal_size"] == 4096
    assert found.omitted["shared_buffers"] == "needs a restart"
    assert "never changed" in found.omitted["max_connections"]
    assert found.omitted["wal_compression"] == "this server was built without lz4"


# -- the load -------------------------------------------------------------------------------------


def test_pgbenchs_progress_is_counted() -> None:
    counts = after_line(
        LoadCounts(completed=100),
        "progress: 3.0 s, 149.7 tps, lat 2.100 ms stddev 0.500, 1 failed, lag 0.100 ms, 2 skipped",
    )
    assert counts == LoadCounts(completed=250, errors=1, dropped=2)
    late = "progress: 4.0 s, 20.0 tps, lat 900.1 ms stddev 5.0, 0 failed, lag 812.500 ms, 0 skipped"
    assert after_line(counts, late).backlog


def test_pgbenchs_lost_clients_are_counted() -> None:
    text = (
        "pgbench: error: client 3 script 0 aborted in command 5 query 0: "
        "ERROR:  canceling statement due to statement timeout"
    )
    assert after_line(LoadCounts(), text) == LoadCounts(timeouts=1)
    lost = (
        "pgbench: error: client 1 aborted in command 2 (SQL) of script 0; perhaps the backend died"
    )
    assert after_line(LoadCounts(), lost) == LoadCounts(errors=1)
    assert after_line(LoadCounts(), "pgbench (17.10)") == LoadCounts()


PGBENCH = PgbenchOffer("select-only", 150.0, 2, 8, 10.0, "/bin/pgbench", {})


def test_pgbenchs_command_line_holds_no_password() -> None:
    url = make_url("postgresql+psycopg2://role:secret@127.0.0.1:5433/live_run")
    command = pgbench_command(url, PGBENCH)
    assert "--builtin=select-only" in command
    assert "--random-seed=2" in command
    assert "--rate=150.0" in command
    assert not any("secret" in part for part in command)


# -- the report -----------------------------------------------------------------------------------


def report_results(tmp_path: Path) -> Results:
    results = Results(tmp_path / "results.jsonl")
    for seed in (0, 1):
        ours, smac = {"work_mem": 8}, {"work_mem": 9}
        finished = (
            part("defaults", seed=seed),
            part("smac3", (1.5, 0.9, 0.7), smac, seed),
            part("ours", (0.8, 0.6), ours, seed),
        )
        for done in finished:
            results.add_part(done.method, done)
        ratios: dict[str, list[float | None]] = {
            "defaults": [1.0, 1.0, 1.0],
            "smac3": [0.70, 0.72, 0.74],
            "ours": [0.60, 0.62, 0.58],
        }
        results.add_comparison(compared(ratios, seed, ours=ours, smac3=smac))
    return results


def test_the_table_has_the_cells_numbers(tmp_path: Path) -> None:
    found = {(line.seed, line.method): line for line in lines(report_results(tmp_path))}
    ours, smac = found["0", "ours"], found["0", "smac3"]
    assert ours.gain.startswith("+0.400 [")
    assert smac.gain.startswith("+0.280 [")
    assert smac.regret == f"{(1.5 + 0.9 + 0.7) - 3 * 0.6:.2f}"
    assert ours.regret == f"{(0.8 + 0.6) - 2 * 0.6:.2f}"
    assert (smac.harmful, smac.worst, smac.trials) == ("1", "+0.50", "3")
    assert found["0", "defaults"].gain == "0 (reference)"
    assert found["0", "ours - best peer (smac3)"].gain.startswith("+0.120 [")


def test_the_table_ends_a_workload_with_all_its_seeds(tmp_path: Path) -> None:
    found = {line.method: line for line in lines(report_results(tmp_path)) if line.seed == ALL}
    assert found["ours"].gain.startswith("+0.400 [")
    assert found["ours"].gain.endswith("sd 0.000")
    assert found["smac3"].harmful == "2"
    assert found["ours - best peer (smac3)"].gain.startswith("+0.120 [")


def test_a_method_that_came_back_to_the_defaults_is_said_so(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add_part("a", part("defaults"))
    results.add_part("b", part("tpe", (1.2,)))
    ratios: dict[str, list[float | None]] = {"defaults": [1.0, 1.0], "tpe": [1.0, 1.0]}
    results.add_comparison(compared(ratios))
    found = {line.method: line for line in lines(results)}
    assert found["tpe"].gain == "0 (the defaults)"
    assert found["tpe"].regret == "0.20"


def test_a_load_that_overran_the_defaults_is_shown(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    results.add_part("x", replace(results.parts["mixed", 0, "smac3"], overrun=True))
    names = [line.method for line in lines(results) if line.seed == "0"]
    assert names[:3] == ["defaults", "smac3 (overrun)", "ours"]


def test_the_table_says_what_each_workload_is_and_who_offers_it(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    for name in ("pgbench", "pgbench-select"):
        rate = replace(PROTOCOL, rate_per_s=150.0)
        results.add_part(name, replace(part("tpe"), workload=name, protocol=rate))
    caption = table(results).caption
    assert isinstance(caption, str)
    mixed, tpcb, select = caption.splitlines()
    assert mixed == "mixed: the demo store's statements, by our open-loop clients, 32/s"
    assert tpcb.startswith("pgbench: pgbench's own script tpcb-like, by the server's own pgbench")
    assert select.startswith("pgbench-select: pgbench's own script select-only")


def test_a_cell_without_its_comparison_is_not_reported(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    results.add_part("again", part("ours", (0.5,), {"work_mem": 77}, seed=1))
    assert list(cells(results)) == [("mixed", 0)]


def test_the_best_peer_may_be_the_defaults(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add_part("a", part("defaults"))
    results.add_part("b", part("pgtune", final={"work_mem": 3}))
    results.add_part("c", part("ours", (0.9,), {"work_mem": 8}))
    ratios: dict[str, list[float | None]] = {
        "defaults": [1.0, 1.0],
        "pgtune": [1.3, 1.2],
        "ours": [0.9, 0.92],
    }
    results.add_comparison(compared(ratios, pgtune={"work_mem": 3}, ours={"work_mem": 8}))
    found = {line.method: line.gain for line in lines(results)}
    assert found["ours - best peer (defaults)"].startswith("+0.090 [")


def test_a_report_of_an_empty_file_is_an_empty_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert knob_live.main(["--report", "--results", str(tmp_path / "none.jsonl")]) == 0
    assert "0 finished cells" in capsys.readouterr().out


# -- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [["--blocks", "1"], ["--minutes", "0"], ["--seeds", "-1"], ["--workload", "none"],
     ["--clients", "0"], ["--rate", "inf"], ["--stop-after", "0"]],
)  # fmt: skip
def test_options_out_of_bounds_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        knob_live.parse(["--results", "r.jsonl", *options])


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        knob_live.parse(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert all(name in text for name in methods.NAMES)


def test_unknown_methods_are_named() -> None:
    with pytest.raises(ConfigError, match="smack"):
        methods.check_names(["ours", "smack"])
    with pytest.raises(ConfigError, match="no method"):
        methods.check_names([])
    assert methods.check_names(["ours", "random", "ours"]) == ("ours", "random")


def test_a_peer_that_is_not_installed_is_told_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods._PACKAGES, "tpe", "no_such_package_here")
    with pytest.raises(ConfigError, match="no_such_package_here") as caught:
        methods.check_names(["tpe"])
    assert "requirements-bench.txt" in str(caught.value)


def test_the_products_own_folder_is_refused(tmp_path: Path) -> None:
    workload = knob_live.LiveWorkload.named("mixed")
    settings = knob_live.settings_for(tmp_path, workload, allow_restart=True)
    assert settings.level1.allow_restart
    assert settings.workload.max_concurrency == workload.clients
    (tmp_path / "telemetry.db").touch()
    with pytest.raises(ConfigError, match="product's own"):
        knob_live.settings_for(tmp_path, workload, allow_restart=False)


def test_unknown_workloads_and_broken_scales_are_refused() -> None:
    with pytest.raises(WorkloadError, match="no workload"):
        knob_live.LiveWorkload.named("nightly")
    with pytest.raises(WorkloadError, match="whole number"):
        knob_live.LiveWorkload.named("pgbench", scale=0.5)
    assert knob_live.LiveWorkload.named("oltp", rate_per_s=50.0).rate_per_s == 50.0
    with pytest.raises(WorkloadError, match="whole number"):
        knob_live.LiveWorkload.named("pgbench-select", scale=0.5)


@pytest.mark.parametrize(
    ("name", "script"), [("pgbench", "tpcb-like"), ("pgbench-select", "select-only")]
)
def test_pgbenchs_scripts_are_offered_by_pgbench_itself(name: str, script: str) -> None:
    server: Any = SimpleNamespace(bin_dir=Path("/some/bin"))
    workload = knob_live.LiveWorkload.named(name, clients=3)
    offer = workload.offer(server, 5)
    assert isinstance(offer, PgbenchOffer)
    assert (offer.script, offer.program) == (script, "/some/bin/pgbench")
    assert (offer.rate_per_s, offer.seed, offer.clients) == (workload.rate_per_s, 5, 3)
    assert workload.template == "live_pgbench"
    assert script in description(name)


def test_the_stores_load_stands_still_at_its_rate() -> None:
    server: Any = None
    offer = knob_live.LiveWorkload.named("mixed", rate_per_s=40.0).offer(server, 5)
    assert isinstance(offer, StoreOffer)
    schedule = offer.schedule()
    assert schedule.rate_per_s == pytest.approx(40.0)
    day_later = schedule.hour_at(24 * 3600.0) - schedule.hour_at(0.0)
    assert day_later == pytest.approx(0.024)  # simulated hours in a real day


def test_results_are_plain_json(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    records = [json.loads(line) for line in results.path.read_text().splitlines()]
    assert {record["kind"] for record in records} == {"part", "comparison"}


def test_a_proposal_out_of_bounds_is_no_configuration() -> None:
    with pytest.raises(KnobBoundsError):
        tuning.fit(fake_live(), {"work_mem": 1})
