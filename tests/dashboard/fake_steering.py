"""Query classes as steering knows them, in every state, with hostile text among them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from datetime import datetime, timedelta

from backend.domain.plans import RunOutcome
from backend.domain.records import LearningRecord
from backend.domain.steering import (
    ClassKey,
    HintEvidence,
    PlanRunRecord,
    RunPurpose,
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
    SteeringStatusRecord,
)
from backend.protocols import TelemetryReader

SEARCH_PATH = '"$user", public'
HOSTILE = '<img src=x onerror="window.__pwned=1"><script>window.__pwned=1</script>'
STEERED, PINNED, WITHDRAWN, SWITCHED_OFF, EXPLORING, WAITING, BEST, REFUSED = (
    ClassKey(f"{number:016x}", SEARCH_PATH)
    for number in (
        0x5F1A9C0D7E34B218, 0x9D02C7714AE0F35B, 0x1C88E2A90B5D6F47, 0x72B4D6E8F0912A3C,
        0xA3E5791B0D8C46F2, 0xB06D13F47A92E85C, 0xC4F8025E9B17D36A, 0xD19E64A7038BF52C,
    )
)  # fmt: skip

DEFAULT_PLAN = """Limit  (cost=58211.42..58211.47 rows=20 width=48)
  ->  Sort  (cost=58211.42..58211.92 rows=200 width=48)
        Sort Key: (sum((oi.quantity * oi.price_cents))) DESC
        ->  HashAggregate  (cost=58203.10..58206.10 rows=200 width=48)
              Group Key: b.name
              ->  Nested Loop  (cost=1204.71..58102.33 rows=13436 width=26)
                    ->  Hash Join  (cost=1204.28..9811.07 rows=13436 width=20)
                          Hash Cond: (oi.product_id = p.id)
                          ->  Seq Scan on order_items oi  (cost=0.00..7120.00 rows=420000 width=16)
                    ->  Index Scan using orders_pkey on orders o  (cost=0.43..3.58 rows=1 width=8)
                          Index Cond: (id = oi.order_id)
                          Filter: ((created_at >= $1) AND (created_at <= $2))"""
STEERED_PLAN = """Limit  (cost=61884.02..61884.07 rows=20 width=48)
  ->  Sort  (cost=61884.02..61884.52 rows=200 width=48)
        Sort Key: (sum((oi.quantity * oi.price_cents))) DESC
        ->  HashAggregate  (cost=61875.70..61878.70 rows=200 width=48)
              Group Key: b.name
              ->  Hash Join  (cost=14810.22..61774.93 rows=13436 width=26)
                    Hash Cond: (oi.order_id = o.id)
                    ->  Hash Join  (cost=1204.28..9811.07 rows=420000 width=20)
                          Hash Cond: (oi.product_id = p.id)
                          ->  Seq Scan on order_items oi  (cost=0.00..7120.00 rows=420000 width=16)
                    ->  Hash  (cost=12104.00..12104.00 rows=120155 width=8)
                          ->  Seq Scan on orders o  (cost=0.00..12104.00 rows=120155 width=8)
                                Filter: ((created_at >= $1) AND (created_at <= $2))"""


def evidence(
    now: datetime,
    hint_set: str,
    settings: dict[str, str],
    default_ms: float,
    steered_ms: float,
    *,
    plan: str = STEERED_PLAN,
) -> HintEvidence:
    """Evidence of a verification, with an interval of a few percent."""
    effect = steered_ms / default_ms - 1
    return HintEvidence(
        hint_set=hint_set,
        settings=settings,
        under={name: "4MB" if name == "work_mem" else "on" for name in settings},
        functions=("count", "sum"),
        statements=6,
        pairs=24,
        effect=effect,
        ci_low=effect - 0.05 * (1 + effect),
        ci_high=effect + 0.06 * (1 + effect),
        confidence=0.995,
        default_ms=default_ms,
        steered_ms=steered_ms,
        default_plan=DEFAULT_PLAN,
        steered_plan=plan,
        verified_at=now - timedelta(minutes=31),
    )


def steered_classes(now: datetime, keys: list[str], texts: list[str]) -> list[SteeredClassRecord]:
    """One class a state; ``keys`` and ``texts`` are those of the classes in telemetry."""
    at = now - timedelta(minutes=12)
    nestloop = {"enable_nestloop": "off"}
    memory = {"enable_nestloop": "off", "work_mem": "64MB"}
    parallel = {"max_parallel_workers_per_gather": "0"}
    return [
        SteeredClassRecord(
            STEERED, texts[2], SteeringState.VERIFIED, at,
            evidence=evidence(now, "no_nestloop", nestloop, 128.4, 47.9),
            default_ms=128.4, plans=9, probes=14, explored_s=4.2, query_keys=(keys[2],),
        ),
        SteeredClassRecord(
            PINNED, texts[4], SteeringState.VERIFIED, at, mode=SteeringMode.PIN,
            evidence=evidence(now, "no_nestloop+work_mem_64mb", memory, 284.0, 61.3),
            default_ms=284.0, plans=12, probes=22, explored_s=9.7, query_keys=(keys[4],),
        ),
        SteeredClassRecord(
            WITHDRAWN, texts[3], SteeringState.WITHDRAWN, at,
            reason="in the last 20 min it was 9.4 % slower than the default plan (3.1 % to 15.9 %)",
            evidence=evidence(now, "no_parallel", parallel, 210.0, 171.0),
            default_ms=154.0, plans=7, probes=11, explored_s=6.0, query_keys=(keys[3],),
        ),
        SteeredClassRecord(
            SWITCHED_OFF, texts[1], SteeringState.VERIFIED, at, mode=SteeringMode.OFF,
            evidence=evidence(
                now, "cheap_random_reads", {"random_page_cost": "1.1"}, 6.5, 3.9,
                plan=f"Seq Scan on notes  (cost=0.00..1.00 rows=1)\n  Filter: {HOSTILE}",
            ),
            default_ms=6.5, plans=5, probes=9, explored_s=0.4, query_keys=(keys[1],),
        ),
        SteeredClassRecord(
            EXPLORING,
            "SELECT c.region, avg(o.total_cents) FROM customers c JOIN orders o ON o.customer_id "
            "= c.id WHERE c.segment = $1 AND o.status = $2 GROUP BY c.region",
            SteeringState.EXPLORING, at, default_ms=96.0, plans=8, probes=5, explored_s=1.3,
        ),
        SteeredClassRecord(
            WAITING, "SELECT s.sku, s.stock FROM stock s WHERE s.warehouse_id = $1 AND s.stock < "
            "$2 ORDER BY s.stock", SteeringState.WAITING, at,
        ),
        SteeredClassRecord(
            BEST, texts[0], SteeringState.DEFAULT_BEST, at,
            reason="none of 4 plans was at least 10 % faster",
            default_ms=0.8, plans=4, probes=6, explored_s=0.1, query_keys=(keys[0],),
        ),
        SteeredClassRecord(
            REFUSED, f"SELECT note({HOSTILE!r})", SteeringState.REFUSED, at,
            reason=f"it calls note(), which is volatile: {HOSTILE}",
        ),
    ]  # fmt: skip


def steering_status(now: datetime) -> SteeringStatusRecord:
    """The explorer at work within its share."""
    return SteeringStatusRecord(
        at=now,
        enabled=True,
        activity=f"verifying no_seqscan on {EXPLORING.fingerprint}: pair 7 of at most 30",
        share=0.2,
        spent_s=402.0,
        elapsed_s=2360.0,
        role="autopilot_explorer",
        served=2,
    )


def buckets_of(latencies_s: Iterable[float]) -> dict[int, int]:
    """A histogram as the plug-in keeps it."""
    counts: dict[int, int] = {}
    for latency_s in latencies_s:
        bucket = max(0, math.floor(8 * math.log2(latency_s * 1e6)))
        counts[bucket] = counts.get(bucket, 0) + 1
    return counts


def service_timings(
    now: datetime, classes: list[SteeredClassRecord], rng: random.Random
) -> list[ServiceTimingRecord]:
    """Half an hour, a record a minute, arm and class that is served; 20 steered to 1 default."""
    records = []
    for minute in range(30):
        started = now - timedelta(minutes=30 - minute)
        for record in classes:
            if record.evidence is None or record.mode is SteeringMode.OFF:
                continue
            worse = 1.6 if record.state is SteeringState.WITHDRAWN else 1.0
            arms = {
                "default": (record.evidence.default_ms, 3),
                "steered": (record.evidence.steered_ms * worse, 60),
            }
            for arm, (mean_ms, count) in arms.items():
                latencies = [mean_ms / 1000 * rng.lognormvariate(-0.08, 0.4) for _ in range(count)]
                records.append(
                    ServiceTimingRecord(
                        started_at=started,
                        ended_at=started + timedelta(minutes=1),
                        key=record.key,
                        hint_set=record.evidence.hint_set,
                        arm=arm,
                        executions=count,
                        total_s=sum(latencies),
                        buckets=buckets_of(latencies),
                        id=len(records) + 1,
                    )
                )
    return records


def plan_runs(now: datetime) -> list[PlanRunRecord]:
    """Eleven plans tried on the steered class; two never ended, one gave another answer."""
    default_s = 0.128
    ratios = (0.38, 0.55, 0.71, 0.93, 1.04, 1.2, 1.9, 3.5, 12.0)
    tried = [(ratio, RunOutcome.FINISHED) for ratio in ratios]
    tried += [(4.0, RunOutcome.TIMED_OUT), (8.0, RunOutcome.TIMED_OUT), (0.1, RunOutcome.FAILED)]
    return [
        PlanRunRecord(
            at=now - timedelta(minutes=20, seconds=-number),
            key=STEERED,
            statement="5d41402abc4b2a76",
            hint_set=f"step_{number}",
            settings={"random_page_cost": f"{number}.5"},
            plan_hash=f"{number:016x}",
            purpose=RunPurpose.PROBE,
            outcome=outcome,
            latency_s=default_s * ratio,
            default_latency_s=default_s,
        )
        for number, (ratio, outcome) in enumerate(tried)
    ]


def plan_learning(now: datetime) -> list[LearningRecord]:
    """Forty turns of the plan agent, started anew after the 25th."""
    return [
        LearningRecord(
            at=now - timedelta(minutes=40 - turn),
            agent="plan",
            step=100 * (turn + 1 if turn < 25 else turn - 24),
            reward=0.4 * (1 - math.exp(-turn / 12)),
            critic_loss=0.3 * math.exp(-turn / 15) + 0.02,
            replay_size=5 * (turn + 1),
            reward_terms={
                "trust": 0.8 * (1 - math.exp(-turn / 10)),
                "shortfall": 0.5 * math.exp(-turn / 20),
            },
        )
        for turn in range(40)
    ]


def record_of(store: TelemetryReader, key: object) -> SteeredClassRecord:
    """The record of a class in a store."""
    return next(r for r in store.steered_classes() if r.key == key)
