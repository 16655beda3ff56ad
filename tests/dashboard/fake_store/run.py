"""A synthetic, realistic run, written into the store for the page tests."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from typing import TYPE_CHECKING

from backend.domain.modes import Mode, Verdict
from backend.domain.records import EventRecord, LearningRecord, QueryClassRecord, StatusRecord
from tests.dashboard import fake_steering
from tests.dashboard.fake_steering import HOSTILE
from tests.dashboard.fake_store.knobs import knob_statuses
from tests.dashboard.fake_store.policies import write_policies
from tests.dashboard.fake_store.telemetry import write_telemetry
from tests.dashboard.fake_store.timeline import QUERIES, Timeline
from tests.dashboard.fake_store.trials import write_trials

if TYPE_CHECKING:
    from tests.dashboard.fake_store.store import FakeStore


def write_run(store: FakeStore, rng: random.Random) -> None:
    """Fill the store."""
    line = Timeline(store.now)
    store._knobs = knob_statuses()
    for i, (text, *_rest) in enumerate(QUERIES):
        key = f"10.16384.{90071992547409 + i * 7919}.t"
        store._classes[key] = QueryClassRecord(key, text, line.started_at)
    write_trials(store, line, rng)
    write_telemetry(store, line, rng)
    _learning(store, line, rng)
    _events(store, line)
    _steering(store, rng)
    write_policies(store, line)
    store._status = StatusRecord(
        at=store.now,
        mode=Mode.AUTO,
        phase=line.phase(0.99),
        server="127.0.0.1:54321/shop",
        server_version="PostgreSQL 17.10",
        index=line.level(1.0),
        trials=len(store._trials),
        trials_by_verdict={v.value: sum(t.verdict is v for t in store._trials) for v in Verdict},
        activity="measuring block 3 of 6 of trial 17 (promotion)",
        progress=0.46,
        policy_version=len(store._versions),
        epoch=3,
        workload="mixed",
        fast_mode=True,
        started_at=line.started_at,
        ends_at=store.now + timedelta(minutes=9),
        safety_reasons=(),
        limits={
            "enabled": True,
            "query_timeout": 30.0,
            "memory_limit_gb": 2.0,
            "memory_limit_percent": 92.0,
            "cpu_limit_percent": 98.0,
            "connections_limit_percent": 90.0,
            "max_error_rate": 0.02,
            "rollback_threshold": 0.15,
            "max_consecutive_failures": 3,
            "max_changes_per_day": 50,
            "sandbox_enabled": False,
        },
    )


def _learning(store: FakeStore, line: Timeline, rng: random.Random) -> None:
    for step in range(140):
        share = 0.16 + 0.84 * step / 140
        effect = rng.gauss(0.05 * math.log1p(step) / 3, 0.08)
        store._learning.append(
            LearningRecord(
                at=line.at(share),
                agent="knob",
                step=step,
                reward=effect - 0.03,
                critic_loss=None if step < 8 else 0.9 * math.exp(-step / 45) + rng.random() * 0.06,
                actor_loss=None if step < 8 else -0.2 - 0.4 * (1 - math.exp(-step / 60)),
                noise=0.3 * math.exp(-step / 80),
                replay_size=step + 1,
                quality=min(1.0, max(0.2, rng.gauss(0.9, 0.12))),
                reward_terms={"latency": effect, "cpu": -0.02, "errors": -0.01},
            )
        )


def _steering(store: FakeStore, rng: random.Random) -> None:
    texts = [text for text, *_rest in QUERIES]
    store._steered = fake_steering.steered_classes(store.now, list(store._classes), texts)
    store._timings = fake_steering.service_timings(store.now, store._steered, rng)
    store._plan_runs = fake_steering.plan_runs(store.now)
    store._learning += fake_steering.plan_learning(store.now)
    store._steering_status = fake_steering.steering_status(store.now)


def _events(store: FakeStore, line: Timeline) -> None:
    add = store._events.append
    rows = (
        (0.001, "info", "start", "tuner started, epoch 3"),
        (0.02, "info", "baseline", "reference fixed over 7 query classes"),
        (0.3, "info", "promotion", "version 2 deployed: work_mem 4 MB to 32 MB"),
        (0.41, "warning", "quality", "3 windows left out: the offered load swung by 48 %"),
        (0.62, "warning", "safety", "CPU at 96.1 % passed the limit of 95 %: no new trial"),
        (0.64, "info", "hint_set_served", "no_nestloop is served for 5f1a9c0d7e34b218"),
        (0.66, "warning", "hint_set_withdrawn", f"no_parallel no longer pays: {HOSTILE}"),
        (0.7, "error", "job", f"collector: could not read pg_stat_io: {HOSTILE}"),
        (0.9, "info", "probation", "version 5 passed its probation"),
    )
    for number, (at, level, kind, message) in enumerate(rows, 1):
        add(EventRecord(at=line.at(at), level=level, kind=kind, message=message, id=number))
