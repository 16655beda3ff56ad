"""What Level 1 and Level 2 did in the synthetic run, and what the versions serve and weigh."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from backend.domain.policies import GenomeRecord, PolicyUpdateRecord, PolicyVersionRecord
from backend.domain.steering import ClassKey, ServedHint
from tests.dashboard.fake_steering import HOSTILE, PINNED, STEERED, WITHDRAWN
from tests.dashboard.fake_store.timeline import Timeline

if TYPE_CHECKING:
    from tests.dashboard.fake_store.store import FakeStore

STUDY = "genomes-4e5f6071a2b3"
POPULATION = 8
GENERATIONS = 5
DEFAULT_GENES: Mapping[str, float] = {
    "learning_rate": 0.001,
    "gamma": 0.0,
    "buffer_size": 2000.0,
    "noise_start": 0.3,
    "quality_floor": 0.2,
    "design_size": 8.0,
}


def write_policies(store: FakeStore, line: Timeline) -> None:
    """Versions with hint sets and weights, a change by hand that was undone, updates, genomes."""
    _versions(store, line)
    store._updates = _updates(line)
    store._genomes = _genomes(line)


def _versions(store: FakeStore, line: Timeline) -> None:
    known = {record.key: record for record in store._steered}

    def serve(*keys: ClassKey) -> tuple[ServedHint, ...]:
        return tuple(
            ServedHint(key, known[key].text, known[key].evidence, pinned=key == PINNED)
            for key in keys
        )

    steering = {3: serve(STEERED), 4: serve(STEERED, WITHDRAWN), 5: serve(STEERED, PINNED)}
    weights = {
        4: {"knob policy": "knob-policy-5f0e12ab.npz"},
        5: {
            "knob policy": "knob-policy-5f0e12ab.npz",
            "plan policy": "plan-policy-77aa01c3.npz",
            "genome": "genome-4e5f6071.json",
        },
    }
    store._versions = [
        replace(v, steering=steering.get(v.id, ()), weights=weights.get(v.id, {}), active=False)
        for v in store._versions
    ]
    last = store._versions[-1]
    by_hand = PolicyVersionRecord(
        created_at=line.at(0.82),
        author="human@dashboard",
        config={**last.config, "checkpoint_timeout": 900},
        id=6,
        parent_id=last.id,
        index=last.index,
        note="set by hand: checkpoint_timeout",
        active=False,
        steering=last.steering,
        weights=last.weights,
    )
    undone = replace(
        last,
        created_at=line.at(0.9),
        author="autopilot",
        id=7,
        parent_id=6,
        trial_id=None,
        note=f"drift: the latency index rose by 6.2 % {HOSTILE}",
        active=True,
    )
    store._versions += [by_hand, undone]


def _updates(line: Timeline) -> list[PolicyUpdateRecord]:
    def update(
        share: float,
        policy: str,
        gain: tuple[float, float, float] | None,
        reason: str,
        weights: str = "",
        replaced: str = "",
    ) -> PolicyUpdateRecord:
        middle, low, high = gain or (None, None, None)
        return PolicyUpdateRecord(
            at=line.at(share),
            policy=policy,
            deployed=bool(weights),
            reason=reason,
            learnt_from=round(180 * share) if policy == "knob" else round(900 * share),
            judged_on=round(45 * share) if policy == "knob" else round(220 * share),
            gain=middle,
            gain_low=low,
            gain_high=high,
            coverage=0.35 + 0.3 * share if gain else 0.0,
            weights=weights,
            replaced=replaced,
            duration_s=4.2 + 9 * share,
        )

    knob, plan = "knob-policy-{}.npz", "plan-policy-{}.npz"
    return [
        replace(record, id=number)
        for number, record in enumerate(
            (
                update(0.30, "knob", None, "31 transitions are fewer than the 64 that it takes"),
                update(0.31, "plan", (0.02, -0.09, 0.12), "the interval reaches below 0"),
                update(
                    0.45, "knob", (0.09, 0.03, 0.14), "9.0 % less latency", knob.format("11c09d2e")
                ),
                update(0.46, "plan", (-0.04, -0.11, 0.02), f"it is slower: {HOSTILE}"),
                update(
                    0.55, "plan", (0.12, 0.05, 0.2), "12 % less latency", plan.format("a0b1c2d3")
                ),
                update(
                    0.57, "knob", (0.06, 0.02, 0.1), "6.0 % less latency", knob.format("5f0e12ab"),
                    knob.format("11c09d2e"),
                ),
                update(
                    0.71, "plan", (0.08, 0.03, 0.13), "8.0 % less latency",
                    plan.format("77aa01c3"),
                ),
                update(0.87, "knob", (0.004, -0.03, 0.04), "the interval reaches below 0"),
            ),
            1,
        )
    ]  # fmt: skip


def _genomes(line: Timeline) -> list[GenomeRecord]:
    """Five generations of eight, and the winner's comparison."""
    records = [
        _individual(line, generation, number)
        for generation in range(GENERATIONS)
        for number in range(POPULATION)
    ]
    winner = replace(
        records[-4],
        at=records[-1].at + timedelta(seconds=40),
        generation=GENERATIONS,
        comparison={"gain": 0.17, "low": 0.06, "high": 0.27, "pairs": 24.0},
        deployed=True,
        reason="trials to 95 % of the gain \u221217 % on 24 pairs of runs",
    )
    return [replace(record, id=i) for i, record in enumerate((*records, winner), 1)]


def _individual(line: Timeline, generation: int, number: int) -> GenomeRecord:
    first = generation == number == 0
    swing = 0.9 if first else math.sin(3.7 * number + 1.3 * generation)
    varied = {
        "learning_rate": 0.001 * 2**swing,
        "noise_start": 0.3 - 0.02 * generation,
        "design_size": 6.0 + number % 3,
    }
    return GenomeRecord(
        at=line.at(0.6) + timedelta(seconds=18 * (generation * POPULATION + number)),
        study=STUDY,
        generation=generation,
        origin="default" if first else "archive" if number == 1 > generation else "evolved",
        genes=DEFAULT_GENES if first else {**DEFAULT_GENES, **varied},
        fitness={
            "trials_to_95": 31 - 3 * generation + 4 * swing,
            "regret": 0.42 - 0.04 * generation + 0.05 * swing,
            "spread": 0.08 - 0.006 * generation + 0.02 * math.cos(2.1 * number),
            "harmful": 0.04,
            "cpu_s": 6.5 + 2 * math.cos(number + generation),
            "memory_bytes": 4e6 + 1e5 * number,
        },
        profile={"calls_per_s": 92.0},
        comparison={},
        reason="measured",
    )
