"""Trials with their evidence, and what they changed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from backend.domain.knobs import KnobValue
from backend.domain.modes import ChangeState, TrialKind, TrialState, Verdict
from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import ChangeRecord, TrialRecord
from tests.dashboard.fake_store.timeline import QUERIES, Timeline

if TYPE_CHECKING:
    from tests.dashboard.fake_store.store import FakeStore


def write_trials(store: FakeStore, line: Timeline, rng: random.Random) -> None:
    """The trials, the versions that they led to, and the changes of knobs."""
    store._versions.append(
        PolicyVersionRecord(
            created_at=line.at(0.02),
            author="tuner",
            config={},
            id=1,
            note="the server as found",
            active=False,
        )
    )
    config: dict[str, KnobValue] = {}
    number = 0
    for p, (at, delta, effect) in enumerate(line.PROMOTIONS):
        for probe in range(3):
            number += 1
            bad = probe == 1
            _trial(
                store,
                line,
                rng,
                number,
                at - 0.09 + probe * 0.02,
                TrialKind.PROBE,
                delta,
                Verdict.REJECT if bad else Verdict.ACCEPT,
                effect=abs(effect) * 0.7 if bad else effect * 1.1,
                width=0.16,
            )
        number += 1
        _trial(
            store,
            line,
            rng,
            number,
            at - 0.025,
            TrialKind.PROMOTION,
            delta,
            Verdict.ACCEPT,
            effect=effect,
            width=0.05,
        )
        config.update({k: after for k, (_b, after) in delta.items()})
        store._versions.append(
            PolicyVersionRecord(
                created_at=line.at(at),
                author="knob agent",
                config=dict(config),
                id=p + 2,
                parent_id=p + 1,
                trial_id=number,
                index=line.level(at),
                note="promoted",
                active=p == len(line.PROMOTIONS) - 1,
            )
        )
        for name, (before, after) in delta.items():
            store._changes.append(
                ChangeRecord(
                    id=len(store._changes) + 1,
                    batch_id=f"trial-{number}",
                    epoch=3,
                    actor="knob agent",
                    knob=name,
                    before_entry=None,
                    after_entry=str(after),
                    before_value=before,
                    after_value=after,
                    state=ChangeState.KEPT,
                    created_at=line.at(at - 0.025),
                    trial_id=number,
                    settled_at=line.at(at),
                    detail="read back after reload",
                )
            )
    _trial(
        store,
        line,
        rng,
        number + 1,
        0.985,
        TrialKind.PROMOTION,
        {"hash_mem_multiplier": (2.0, 4.0)},
        None,
        effect=-0.04,
        width=0.2,
    )


def _trial(
    store: FakeStore,
    line: Timeline,
    rng: random.Random,
    number: int,
    at: float,
    kind: TrialKind,
    delta: Mapping[str, tuple[KnobValue, KnobValue]],
    verdict: Verdict | None,
    *,
    effect: float,
    width: float,
) -> None:
    blocks = 1 if kind is TrialKind.PROBE else 6
    done = blocks if verdict else 3
    reasons = (
        {
            Verdict.ACCEPT: ("interval clear of 0", "no class slower by more than 10 %"),
            Verdict.REJECT: ("interval reaches above 0",),
        }.get(verdict, ())
        if verdict
        else ()
    )
    keys = list(store._classes)
    store._trials.append(
        TrialRecord(
            kind=kind,
            state=TrialState.FINISHED if verdict else TrialState.MEASURING,
            proposer="expert rules" if number < 5 else "knob agent",
            created_at=line.at(at),
            before={k: v[0] for k, v in delta.items()},
            after={k: v[1] for k, v in delta.items()},
            id=number,
            finished_at=line.at(at + 0.02) if verdict else None,
            verdict=verdict,
            reasons=reasons,
            effect=effect,
            ci_low=effect - width / 2,
            ci_high=effect + width / 2,
            blocks=done,
            max_blocks=blocks,
            block_log_ratios=tuple(
                math.log(1 + effect + rng.gauss(0, width / 6)) for _ in range(done)
            ),
            coverage=0.94,
            quality=0.86 + rng.random() * 0.1,
            class_effects={
                key: {
                    "effect": effect * f,
                    "ci_low": effect * f - 0.04,
                    "ci_high": effect * f + 0.04,
                    "incumbent_ms": QUERIES[i][2],
                    "candidate_ms": QUERIES[i][2] * (1 + effect * f),
                }
                for i, (key, f) in enumerate(
                    zip(keys, (0.1, 0.5, 1.4, 1.6, 1.2, -0.2), strict=False)
                )
            },
            progress=1.0 if verdict else 0.46,
        )
    )
