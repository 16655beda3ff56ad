"""The benchmark of workload shifts: what is measured, stopped and gone on with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from backend.domain.knobs import KnobConfig, KnobValue
from backend.errors import StaleEpochError
from benchmarks.shift.measuring import Bench, tell_again
from benchmarks.shift.returns import Phase, returns_of
from benchmarks.shift.simulated import GAIN, SPACE, WORKLOADS, SimulatedSite, foreign_index
from benchmarks.workload_shift import METHODS


class Scripted:
    """A tuner that asks what it was told to, and remembers what it was given."""

    def __init__(self, configs: Sequence[Mapping[str, KnobValue]]) -> None:
        self.configs = [SPACE.default_config().replace(config) for config in configs]
        self.asked: list[np.ndarray | None] = []
        self.told: list[tuple[KnobConfig, float, bool]] = []

    def ask(self, state: np.ndarray | None = None) -> KnobConfig:
        self.asked.append(state)
        return self.configs[(len(self.asked) - 1) % len(self.configs)]

    def tell(
        self,
        config: Mapping[str, KnobValue],
        objective: float,
        state: np.ndarray | None = None,
        quality: float = 1.0,
        censored: bool = False,
    ) -> None:
        self.told.append((KnobConfig(config), objective, censored))


def test_the_workloads_want_different_configurations() -> None:
    names = list(WORKLOADS)
    site = SimulatedSite(3, names)
    assert len({site.best_config(name) for name in names}) == len(names)
    assert site.best_index("analytical") == pytest.approx(1.0 - GAIN)
    assert foreign_index(range(5), names) > 1.2 * (1.0 - GAIN)


def test_a_phase_measures_what_the_model_says() -> None:
    workloads = ["transactional", "analytical"]
    site = SimulatedSite(0, workloads)
    bench, best = Bench(site), site.best_config("transactional")
    tuner = Scripted([best])
    first = bench.run_phase(tuner, [], ("ours", 0, "transactional"), sees_state=True, trials=3)
    assert first.default is not None
    assert [t.index for t in first.trials] == pytest.approx([1.0 - GAIN] * 3)
    for tried in first.trials:
        assert tried.objective is not None
        assert math.log(tried.objective / (1.0 - GAIN)) == pytest.approx(0.0, abs=0.25)
    assert first.standing == best  # its first probe was deployed
    assert tuner.told[0][:2] == (SPACE.default_config(), 1.0)
    assert all(state is not None and state.shape == (19,) for state in tuner.asked)

    # By night the day's configuration stands; the default one is measured first all the same.
    second = bench.run_phase(tuner, [first], ("ours", 0, "analytical"), sees_state=False, trials=1)
    assert second.default is not None
    assert second.reference is not None
    assert tuner.asked[-1] is None
    third = bench.run_phase(
        tuner, [first, second], ("ours", 0, "transactional"), sees_state=True, trials=1
    )
    assert third.default is None
    (only,) = returns_of([first, second, third])
    assert (only.first, only.log_ratios[1]) == ("best", 0.0)


def test_the_workloads_states_lie_apart() -> None:
    site = SimulatedSite(1, ["transactional", "analytical"])
    bench, tuner = Bench(site), Scripted([{}])
    phases: list[Phase] = []
    for workload in ["transactional", "analytical"] * 2:
        about = ("ours", 1, workload)
        phases.append(bench.run_phase(tuner, phases, about, sees_state=True, trials=2))
    states = [np.array(p.trials[0].asked_in) for p in phases]
    assert np.linalg.norm(states[2] - states[0]) < 0.5 * np.linalg.norm(states[1] - states[0])


def test_what_is_much_worse_is_stopped_and_told_as_a_bound() -> None:
    site = SimulatedSite(0, ["transactional"])
    worst = max(
        (
            SPACE.decode(np.array(x))
            for x in np.random.default_rng(0).uniform(-1, 1, (50, SPACE.width))
        ),
        key=lambda config: site.index_of("transactional", config),
    )
    phase_ = Bench(site).run_phase(
        Scripted([worst]), [], ("ours", 0, "transactional"), sees_state=True, trials=1
    )
    (tried,) = phase_.trials
    assert tried.censored
    assert tried.objective == pytest.approx(1.15)
    assert phase_.standing == SPACE.default_config()


def test_who_may_not_act_any_more_ends_and_learns_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, tuner = SimulatedSite(0, ["transactional"]), Scripted([{}])

    def keep_alive() -> None:
        if tuner.asked:  # the first trial is running
            raise StaleEpochError("another tuner acts on this data folder")

    monkeypatch.setattr(site, "keep_alive", keep_alive)
    with pytest.raises(StaleEpochError):
        Bench(site).run_phase(tuner, [], ("ours", 0, "transactional"), sees_state=True, trials=1)
    assert len(tuner.told) == 1  # the default configuration


def test_a_fresh_tuner_is_brought_to_where_the_old_one_was() -> None:
    site = SimulatedSite(0, ["transactional"])
    configs = [{"work_mem": 8192}, {"work_mem": 16384}]
    old, new = Scripted(configs), Scripted(configs)
    phase_ = Bench(site).run_phase(old, [], ("ours", 0, "transactional"), sees_state=True, trials=2)
    tell_again(new, [phase_], sees_state=True)
    assert new.told == old.told
    assert [list(s) for s in new.asked if s is not None] == [
        list(s) for s in old.asked if s is not None
    ]


def test_a_bench_goes_on_where_another_process_ended() -> None:
    site = SimulatedSite(0, ["transactional"])
    best = site.best_config("transactional")
    first = Bench(site).run_phase(
        Scripted([best]), [], ("ours", 0, "transactional"), sees_state=True, trials=1
    )
    bench = Bench(site)
    bench.go_on_after([first])
    second = bench.run_phase(
        Scripted([best]),
        [first],
        ("ours", 0, "transactional"),
        sees_state=True,
        seconds=1.0,
        compare=True,
    )
    assert second.default is None  # the reference is that of the first visit
    assert len(second.trials) == 1
    assert second.compared == {1: 0.0, 5: 0.0}  # the same configuration needs no comparison


def test_a_return_is_compared_interleaved_on_request() -> None:
    site = SimulatedSite(0, ["transactional"])
    bench, best = Bench(site), site.best_config("transactional")
    default = SPACE.encode(SPACE.default_config())
    near = SPACE.decode(SPACE.encode(best) + 0.4 * (default - SPACE.encode(best)))
    about = ("ours", 0, "transactional")
    first = bench.run_phase(Scripted([best]), [], about, sees_state=True, trials=1)
    second = bench.run_phase(
        Scripted([near]), [first], about, sees_state=True, trials=1, compare=True
    )
    true = math.log(site.index_of("transactional", near) / (1.0 - GAIN))
    assert 0.0 < true < math.log(1.15)
    assert second.compared[1] == pytest.approx(true, abs=0.1)
    assert second.compared[1] != 0.0
    assert second.standing == best


def test_what_was_stopped_is_not_put_on_the_server_again() -> None:
    site = SimulatedSite(0, ["transactional"])
    bench, best = Bench(site), site.best_config("transactional")
    about = ("ours", 0, "transactional")
    first = bench.run_phase(Scripted([best]), [], about, sees_state=True, trials=1)
    second = bench.run_phase(
        Scripted([{}]), [first], about, sees_state=True, trials=1, compare=True
    )
    assert second.trials[0].censored
    assert second.compared == {}


def test_every_method_has_a_tuner() -> None:
    from benchmarks.tuners import TUNERS

    assert {method.tuner for method in METHODS.values()} <= set(TUNERS)
