"""Windows of the server and intervals of its clients."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from backend.domain.modes import Arm, Phase, TrialState
from backend.domain.records import ClientIntervalRecord, QueryWindowRecord, WindowRecord
from tests.dashboard.fake_store.timeline import QUERIES, WINDOW_S, Timeline

if TYPE_CHECKING:
    from tests.dashboard.fake_store.store import FakeStore


def write_telemetry(store: FakeStore, line: Timeline, rng: random.Random) -> None:
    """The windows and the intervals of the clients."""
    keys = list(store._classes)
    for i in range(line.count):
        share = i / line.count
        started = line.at(share)
        ended = started + timedelta(seconds=WINDOW_S)
        phase, level = line.phase(share), line.level(share)
        swing = 1.0 + 0.25 * math.sin(share * 14.0)
        trial = next(
            (
                t
                for t in store._trials
                if t.created_at <= started
                and started < (t.finished_at or store.now)
                and t.state is not TrialState.APPLYING
            ),
            None,
        )
        arm = None if trial is None else (Arm.CANDIDATE, Arm.INCUMBENT)[i % 2]
        if arm is Arm.CANDIDATE and trial is not None and trial.effect is not None:
            level *= 1 + trial.effect
        spoilt = rng.random() < 0.05
        noise = rng.gauss(1.0, 0.12 if spoilt else 0.018)
        queries = tuple(
            QueryWindowRecord(
                key,
                calls=max(1, int(QUERIES[q][3] * swing * WINDOW_S)),
                mean_ms=QUERIES[q][2] * level * rng.gauss(1.0, 0.05),
                rows=100,
                shared_blocks_hit=9000,
                shared_blocks_read=int(900 * level),
                temp_blocks_written=int(400 * max(0.0, level - 0.8)) if q in (2, 3) else 0,
            )
            for q, key in enumerate(keys)
        )
        calls = sum(q.calls for q in queries)
        mean = sum(q.calls * q.mean_ms for q in queries) / calls
        store._windows.append(
            WindowRecord(
                started_at=started,
                ended_at=ended,
                duration_s=WINDOW_S,
                phase=phase,
                config={},
                id=i + 1,
                arm=arm,
                trial_id=trial.id if trial else None,
                index=None if phase is Phase.STARTING else level * noise,
                coverage=0.95,
                quality=0.35 if spoilt else min(1.0, 0.9 + rng.random() * 0.1),
                quality_reasons=("unsteady load",) if spoilt else (),
                calls_per_s=calls / WINDOW_S,
                mean_ms=mean,
                rates={
                    "blocks_hit": 52000.0 * swing,
                    "blocks_read": 2600.0 * level,
                    "host_read_bytes": 21e6 * level * swing,
                    "host_write_bytes": 8e6 * swing,
                    "wal_bytes": 2.1e6 * swing,
                    "temp_bytes": 3.4e6 * max(0.0, level - 0.85) * 8,
                    "xact_commit": calls / WINDOW_S,
                },
                gauges={
                    "host_cpu_percent": min(99.0, 58 * level * swing + rng.gauss(0, 3)),
                    "host_memory_percent": 61 + 3 * share,
                    "connections_active": 5 * level * swing,
                    "connections_used_ratio": 0.23,
                    "rollback_ratio": 0.001,
                    "cache_hit_ratio": 52.0 * swing / (52.0 * swing + 2.6 * level),
                },
                queries=queries,
            )
        )
        for step in range(2):
            _intervals(store, rng, started + timedelta(seconds=step * 6), level, swing)


def _intervals(
    store: FakeStore, rng: random.Random, started: datetime, level: float, swing: float
) -> None:
    mean = 17.0 * level * swing * rng.gauss(1.0, 0.05)
    names = ["*", *dict.fromkeys(q[1] for q in QUERIES)]
    for name in names:
        factor = 1.0 if name == "*" else 0.05 + 3 * names.index(name) / len(names)
        offered = int(92 * 6 * swing / (1 if name == "*" else len(names) - 1))
        store._intervals.append(
            ClientIntervalRecord(
                started_at=started,
                ended_at=started + timedelta(seconds=6),
                class_name=name,
                offered=offered,
                completed=offered - (rng.random() < 0.1),
                errors=0,
                timeouts=0,
                mean_ms=mean * factor,
                p50_ms=mean * factor * 0.5,
                p95_ms=mean * factor * 3.2,
                p99_ms=mean * factor * 6.1,
                service_mean_ms=mean * factor * 0.9,
            )
        )
