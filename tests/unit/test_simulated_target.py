"""The simulated database: exact answers, a server's life, noise, load and faults."""

from __future__ import annotations

import numpy as np
import pytest

from backend.catalog.knobs import load_catalog
from backend.catalog.metrics import postgresql_metrics
from backend.domain.clock import ManualClock
from backend.domain.server import HostFacts
from backend.errors import (
    EmbeddedServerError,
    KnobBoundsError,
    ServerConnectionError,
    UnknownKnobError,
    UnsupportedServerError,
)
from backend.protocols import Clock, TargetDatabase
from backend.targets.simulated import LoadScript, Noise, ResponseModel, SimulatedDatabase


def made(**options: object) -> SimulatedDatabase:
    return SimulatedDatabase(clock=ManualClock(), **options)  # type: ignore[arg-type]


def advance(target: SimulatedDatabase, seconds: float) -> None:
    assert isinstance(target.clock, ManualClock)
    target.clock.advance(seconds)


def window(target: SimulatedDatabase, seconds: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """Calls and mean ms of every class over a window."""
    before = target.snapshot()
    advance(target, seconds)
    after = target.snapshot()
    calls, times = [], []
    for key in target.keys:
        old, new = before.queries.get(key), after.queries[key]
        calls.append(new.calls - (old.calls if old else 0))
        times.append(new.exec_time_ms - (old.exec_time_ms if old else 0.0))
    return np.array(calls), np.array(times) / np.array(calls)


def test_it_is_a_target_database() -> None:
    target = made()
    assert isinstance(target, TargetDatabase)
    clock: Clock = target.clock
    assert target.describe().started_at == clock.now()


@pytest.mark.parametrize("opposed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_no_configuration_beats_the_best(opposed: bool, seed: int) -> None:
    model = ResponseModel(opposed_class=opposed, seed=seed)
    rng = np.random.default_rng(seed)
    best = model.index_of(model.best_config)
    vectors = rng.uniform(-1, 1, (200, model.space.width))
    near = model.space.encode(model.best_config) + rng.normal(0, 0.05, (200, model.space.width))
    for vector in [*vectors, *near]:
        config = model.space.decode(vector)
        assert model.index_of(config) >= best or config == model.best_config


@pytest.mark.parametrize("gain", [0.1, 0.35, 0.6])
def test_the_best_configuration_saves_exactly_the_stated_gain(gain: float) -> None:
    model = ResponseModel(gain=gain, seed=4)
    assert model.index_of(model.space.default_config()) == 1.0
    assert model.index_of(model.best_config) == pytest.approx(1.0 - gain)


def test_with_no_gain_the_default_configuration_is_the_best() -> None:
    model = ResponseModel(gain=0.0)
    assert model.best_config == model.space.default_config()
    worse = model.space.default_config().replace({"work_mem": 64})
    assert model.index_of(worse) > 1.05


def test_the_opposed_class_suffers_where_the_others_gain() -> None:
    model = ResponseModel(opposed_class=True)
    default = model.latency_ms(model.space.default_config())
    best = model.latency_ms(model.best_config)
    assert (best[:-1] < default[:-1]).all()
    assert best[-1] > default[-1]


def test_far_from_the_best_there_is_a_cliff() -> None:
    model = ResponseModel()
    lows = [
        model.index_of(model.best_config.replace({"work_mem": value}))
        for value in (98304, 49152, 16384, 1024, 64)
    ]
    assert lows == sorted(lows)
    assert lows[-1] > 1.5 * lows[1]


def test_contention_grows_with_the_load() -> None:
    model = ResponseModel()
    default = model.space.default_config()
    idle, normal, heavy = (model.latency_ms(default, load) for load in (0.0, 1.0, 1.5))
    assert (idle < normal).all()
    assert (normal < heavy).all()
    np.testing.assert_allclose(idle, model.service_ms(default))


def test_any_knob_space_can_be_simulated() -> None:
    host = HostFacts(8 * 1024**3, 4.0)
    model = ResponseModel(load_catalog(17, host).space(include_restart=True), seed=3)
    assert len(model.space) > 30
    assert model.index_of(model.best_config) == pytest.approx(0.65)


def test_measured_means_are_the_models_without_noise() -> None:
    target = made()
    _, means = window(target)
    np.testing.assert_allclose(
        means, target.model.latency_ms(target.space.default_config()), rtol=1e-9
    )
    target.write_entries(dict(target.best_config))
    target.restart()
    _, means = window(target)
    np.testing.assert_allclose(means, target.model.latency_ms(target.best_config), rtol=1e-9)


def test_noise_is_seeded_and_centred_on_the_model() -> None:
    def many(seed: int) -> np.ndarray:
        target = made(noise=Noise(), seed=seed)
        return np.array([window(target)[1] for _ in range(300)])

    first, again, other = many(1), many(1), many(2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    truth = ResponseModel().latency_ms(ResponseModel().space.default_config())
    np.testing.assert_allclose(first.mean(axis=0), truth, rtol=0.05)
    assert (first.std(axis=0) / truth > 0.01).all()


def test_noise_is_autocorrelated() -> None:
    target = made(noise=Noise(per_call=0.0, correlation=0.9))
    logs = np.log([window(target, 1.0)[1][0] for _ in range(800)])
    centred = logs - logs.mean()
    correlation = (centred[1:] * centred[:-1]).mean() / (centred**2).mean()
    assert correlation == pytest.approx(0.9, abs=0.1)


def test_the_load_swings_and_shifts_as_scripted() -> None:
    script = LoadScript(swing=0.5, period_s=400.0, shifts=[(1000.0, 2.0, (1, 1, 1, 0, 1, 1))])
    target = made(load=script)
    day = [window(target, 100.0)[0].sum() for _ in range(4)]
    assert day[0] == pytest.approx(day[1], rel=0.01)
    assert day[2] < 0.6 * day[0]
    advance(target, 600.0)
    before = target.snapshot()
    advance(target, 10.0)
    after = target.snapshot()
    assert after.queries[target.keys[3]].calls == before.queries[target.keys[3]].calls
    assert after.queries[target.keys[0]].calls > before.queries[target.keys[0]].calls


def test_entries_take_effect_on_reload_and_restart_knobs_on_restart() -> None:
    target = made()
    target.write_entries({"work_mem": 65536, "shared_buffers": 524288})
    reading = target.read_knobs(["work_mem", "shared_buffers", "no_such_knob"])
    assert set(reading) == {"work_mem", "shared_buffers"}
    assert (reading["work_mem"].value, reading["work_mem"].entry) == (4096, "65536")
    loaded_before = target.snapshot().config_loaded_at
    advance(target, 1.0)
    target.reload()
    reading = target.read_knobs(["work_mem", "shared_buffers"])
    assert (reading["work_mem"].value, reading["work_mem"].source) == (65536, "configuration file")
    assert (reading["shared_buffers"].value, reading["shared_buffers"].pending_restart) == (
        16384,
        True,
    )
    assert target.snapshot().config_loaded_at > loaded_before
    started_before = target.snapshot().server_started_at
    advance(target, 1.0)
    target.restart()
    reading = target.read_knobs(["shared_buffers"])
    assert (reading["shared_buffers"].value, reading["shared_buffers"].pending_restart) == (
        524288,
        False,
    )
    assert target.snapshot().server_started_at > started_before


def test_removing_an_entry_brings_the_default_back() -> None:
    target = made()
    target.write_entries({"jit": False})
    target.reload()
    assert target.read_knobs(["jit"])["jit"].entry == "off"
    target.write_entries({"jit": None})
    target.reload()
    reading = target.read_knobs(["jit"])["jit"]
    assert (reading.value, reading.entry, reading.source) == (True, None, "default")


def test_bad_entries_are_refused_and_earlier_ones_stay() -> None:
    target = made()
    with pytest.raises(KnobBoundsError):
        target.write_entries({"jit": False, "work_mem": 1})
    with pytest.raises(UnknownKnobError):
        target.write_entries({"fsync": False})
    assert target.read_knobs(["jit"])["jit"].entry == "off"


def test_an_override_wins_over_our_entry() -> None:
    target = made()
    target.overrides["work_mem"] = ("database", 1024)
    target.write_entries({"work_mem": 65536})
    target.reload()
    reading = target.read_knobs(["work_mem"])["work_mem"]
    assert (reading.value, reading.entry, reading.override) == (1024, "65536", "database")


def test_somebody_else_changes_a_knob() -> None:
    target = made()
    target.foreign_change("random_page_cost", 1.5)
    assert target.effective_config["random_page_cost"] == 1.5


def test_a_reset_of_statistics_is_visible() -> None:
    target = made()
    window(target)
    advance(target, 1.0)
    target.reset_statistics()
    snapshot = target.snapshot()
    assert snapshot.queries == {}
    assert snapshot.statistics_reset_at == target.clock.now()


def test_a_crash_loses_connection_and_statistics_but_no_entry() -> None:
    target = made()
    target.write_entries({"jit": False})
    window(target)
    target.crash()
    with pytest.raises(ServerConnectionError):
        target.snapshot()
    snapshot = target.snapshot()
    assert snapshot.server_started_at == target.clock.now()
    assert snapshot.queries == {}
    assert target.effective_config["jit"] is False


def test_a_fault_strikes_where_it_was_put() -> None:
    target = made()
    target.inject("write_entry", ServerConnectionError("lost"), after=1)
    with pytest.raises(ServerConnectionError, match="lost"):
        target.write_entries({"jit": False, "work_mem": 8192, "random_page_cost": 2.0})
    entries = {n: r.entry for n, r in target.read_knobs(target.space.names).items() if r.entry}
    assert entries == {"jit": "off"}
    target.inject("reload", ServerConnectionError("lost"))
    with pytest.raises(ServerConnectionError):
        target.reload()
    assert target.effective_config["jit"] is True
    target.reload()
    assert target.effective_config["jit"] is False


def test_a_hang_lets_time_pass() -> None:
    target = made()
    target.inject("reload", hang_s=120.0)
    target.reload()
    assert target.clock.monotonic_s() == 120.0


def test_a_configuration_can_keep_the_server_from_starting() -> None:
    target = made(refuses_to_start=lambda config: config["shared_buffers"] > 1_000_000)
    target.write_entries({"shared_buffers": 1_100_000})
    with pytest.raises(EmbeddedServerError):
        target.restart()
    with pytest.raises(ServerConnectionError):
        target.snapshot()


def test_restarts_can_be_forbidden() -> None:
    target = made(restart_allowed=False)
    assert not target.describe().can("restart")
    with pytest.raises(UnsupportedServerError):
        target.restart()


def test_closing_is_idempotent_and_final() -> None:
    target = made()
    target.close()
    target.close()
    with pytest.raises(ServerConnectionError):
        target.describe()


def test_lock_and_other_sessions() -> None:
    target = made()
    target.other_tuners = 2
    assert (target.end_tuner_sessions(), target.end_tuner_sessions()) == (2, 0)
    assert target.hold_tuner_lock()
    target.lock_held_elsewhere = True
    assert not target.hold_tuner_lock()


def test_metrics_have_catalogued_names() -> None:
    target = made()
    window(target)
    snapshot = target.snapshot()
    catalogue = postgresql_metrics()
    known = set(catalogue.metrics)
    assert set(snapshot.counters) | set(snapshot.gauges) <= known
    assert list(target.query_texts(target.keys)) == list(target.keys)


def test_the_manual_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        ManualClock().advance(-1.0)
