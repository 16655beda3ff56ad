"""A run of the tuner, put together as its settings say."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.config import PathSettings, load_settings
from backend.domain.clock import ManualClock
from backend.orchestrator import SystemOrchestrator
from backend.run_options import RunOptions
from backend.run_parts import _vetting
from backend.steering.turns import ExplorationTurns
from backend.targets.postgresql import PostgresTarget
from backend.targets.simulated import SimulatedDatabase
from tests.simulated_run import settings_in


def begun(folder: Path, **options: object) -> SystemOrchestrator:
    target = SimulatedDatabase()
    assert isinstance(target.clock, ManualClock)
    made = SystemOrchestrator(
        settings_in(folder),
        options=RunOptions(**options),  # type: ignore[arg-type]
        target_factory=lambda _: target,
        clock=target.clock,
    )
    made.begin(made._options.duration_days, made._options.fast_mode)
    return made


@pytest.mark.parametrize(
    ("sandbox", "target", "vetted"),
    [
        (True, PostgresTarget.__new__(PostgresTarget), True),
        (False, PostgresTarget.__new__(PostgresTarget), False),
        (True, SimulatedDatabase(), False),
    ],
)
def test_candidates_are_vetted_where_the_settings_say_so(
    tmp_path: Path, sandbox: bool, target: object, vetted: bool
) -> None:
    settings = load_settings(
        overrides={
            "safety": {"sandbox_enabled": sandbox},
            "paths": PathSettings.under(tmp_path),
            "database": {"host": "db.example"},
        },
        environ={},
    )
    parts = SimpleNamespace(
        settings=settings, target=target, catalog=SimpleNamespace(names=()), store=None
    )
    clock, stop = ManualClock(), threading.Event()
    made = _vetting(parts, ExplorationTurns(0.2, clock), clock, stop)  # type: ignore[arg-type]
    assert (made is not None) is vetted


def test_intervals_pass_as_fast_as_the_run(tmp_path: Path) -> None:
    made = begun(tmp_path, fast_mode=True)
    try:
        day_s = made.settings.level1.recheck_interval
        assert made.loop._next._schedule.recheck_every_s == pytest.approx(day_s / 100)
        assert made.loop._next._schedule.compare_at_s is None
    finally:
        made.end()
