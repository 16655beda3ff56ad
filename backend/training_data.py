"""What was recorded, as episodes to learn from: by run and workload, in the agent's encoding.

Objectives of two runs cannot be compared, so each run and workload is an episode of its own and
rewards are ranked within it. Values are encoded with the space in which they were measured: a
coordinate then means the same share of each machine's range.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from backend.agent.pretrained import Pretrained
from backend.domain.knobs import KnobSpace
from backend.domain.records import KnobSpaceRecord, TransitionRecord
from backend.domain.transition import Transition
from backend.errors import AutopilotError, KnobError
from backend.protocols import TelemetryReader
from backend.state_features import STATE_LAYOUT, STATE_WIDTH

OTHER_SPACE = "of another knob space"
OTHER_STATES = "with another layout of the state"
NO_STATE = "without a state"
LOW_QUALITY = "below the quality floor"
TWICE = "recorded twice"
DAMAGED = "damaged"
ALONE = "alone in their run, with nothing to compare with"
LEARNT_BEFORE = "learnt before"
"""Stands for the workloads of a trained agent, which does not keep their names."""
MOST = 1_000_000
"""Transitions read from one store: all there are (the store keeps fewer)."""

Episodes = dict[tuple[str, str], list[Transition]]
"""By run and workload."""
_REMEDIES = {
    OTHER_SPACE: "give the store of the server that shall be tuned first: its knobs count",
    OTHER_STATES: "they were recorded by another version; let this one tune for a while",
    LOW_QUALITY: "lower level0.knob.quality_floor, or record under a steadier load",
}


@dataclass(frozen=True)
class TrainingData:
    """What there is to learn from.

    Args:
        space: the knob space of the agent to train.
        episodes: transitions by run and workload, oldest first; those of the first store last.
        workloads: each episode's workload.
        left_out: how many transitions were left out, by reason.
    """

    space: KnobSpace
    episodes: tuple[tuple[Transition, ...], ...]
    workloads: tuple[str, ...]
    left_out: Mapping[str, int]

    @property
    def used(self) -> int:
        """Transitions in all episodes."""
        return sum(len(episode) for episode in self.episodes)


@dataclass(frozen=True)
class Recorded:
    """What one store holds, with its address for messages."""

    address: str
    spaces: Mapping[str, KnobSpaceRecord]
    transitions: Sequence[TransitionRecord]

    @classmethod
    def read(cls, store: TelemetryReader, address: str) -> Recorded:
        """Read everything at once; a transition takes about a kilobyte."""
        return cls(address, store.knob_spaces(), store.transitions(limit=MOST))


def training_data(
    recorded: Sequence[Recorded],
    quality_floor: float,
    target: KnobSpace | None = None,
    known: Pretrained | None = None,
) -> TrainingData:
    """Sort recorded transitions into episodes; what cannot be used is counted by reason.

    Args:
        recorded: what the stores hold.
        quality_floor: transitions below it are left out.
        target: the knobs that count; None: those of the first store with a transition.
        known: an agent trained before, whose transitions are used as well.

    Raises:
        AutopilotError: nothing is left, and why.
        CheckpointError: the trained agent is for other knobs or states.
    """
    total = sum(len(part.transitions) for part in recorded)
    where = ", ".join(part.address for part in recorded)
    if not total:
        raise AutopilotError(
            f"no transitions are recorded in {where}",
            remedy="let the tuner measure for a while, or name another store with --store",
        )
    target = target or _target_space(recorded)
    spaces = {
        (number, name): space
        for number, part in enumerate(recorded)
        for name, record in part.spaces.items()
        if (space := _space(record)) is not None
    }
    left_out: Counter[str] = Counter()
    seen: set[tuple[str, str, datetime]] = set()
    episodes: Episodes = {}
    # An agent that can hold less than all keeps what comes last: the first store's.
    for number, part in reversed(list(enumerate(recorded))):
        for record in part.transitions:
            key = (record.run, record.workload, record.at)
            reason = TWICE if key in seen else ""
            seen.add(key)
            space = spaces.get((number, record.knob_space))
            transition = None
            if not reason:
                reason = _why_not(record, space, target, quality_floor)
            if not reason and space is not None:
                transition = _transition(record, space)
            if transition is None:
                left_out[reason or DAMAGED] += 1
            else:
                episodes.setdefault(key[:2], []).append(transition)
    _leave_out_alone(episodes, left_out)
    if not episodes:
        _refuse(total, where, left_out)
    if known is not None:
        known.check(target, STATE_LAYOUT)
        episodes = {**_learnt_before(known, episodes, left_out), **episodes}
    return TrainingData(
        space=target,
        episodes=tuple(_linked(episode) for episode in episodes.values()),
        workloads=tuple(workload for _, workload in episodes),
        left_out=dict(left_out),
    )


def _target_space(recorded: Sequence[Recorded]) -> KnobSpace:
    """The space of the newest transition of the first store that has a readable one."""
    for part in recorded:
        for record in reversed(part.transitions):
            known = part.spaces.get(record.knob_space)
            space = _space(known) if known is not None else None
            if space is not None:
                return space
    where = ", ".join(part.address for part in recorded)
    raise AutopilotError(
        f"the knob spaces of the transitions in {where} are missing or damaged",
        remedy="name another store with --store",
    )


def _space(record: KnobSpaceRecord) -> KnobSpace | None:
    try:
        return record.space()
    except KnobError:
        return None


def _why_not(
    record: TransitionRecord, space: KnobSpace | None, target: KnobSpace, quality_floor: float
) -> str:
    """Why a transition is left out; empty when it is not."""
    if space is None:
        return DAMAGED
    if space.shape_fingerprint != target.shape_fingerprint:
        return OTHER_SPACE
    if not record.state:
        return NO_STATE
    if record.state_layout != STATE_LAYOUT:
        return OTHER_STATES
    if not 0.0 <= record.quality <= 1.0:
        return DAMAGED
    return LOW_QUALITY if record.quality < quality_floor else ""


def _transition(record: TransitionRecord, space: KnobSpace) -> Transition | None:
    """The transition as the agent takes it; None where its numbers make no sense."""
    terms = dict(record.reward_terms)
    reward = sum(terms.values())
    objective = math.inf if math.isnan(record.objective) else record.objective
    bound = record.censored and reward == -math.inf
    state = np.array(record.state, dtype=np.float64)
    if not terms or not (math.isfinite(reward) or bound):
        return None
    if math.isinf(objective) and not record.censored:
        return None
    if state.shape != (STATE_WIDTH,) or not np.isfinite(state).all():
        return None
    try:
        action = space.encode(space.validate(record.config))
    except KnobError:
        return None
    return Transition(
        state=state,
        action=action,
        reward=reward,
        next_state=state,
        objective=objective,
        quality=record.quality,
        censored=record.censored,
        reward_terms=terms,
    )


def _leave_out_alone(episodes: Episodes, left_out: Counter[str]) -> None:
    """A rank among one says nothing."""
    for name in [name for name, episode in episodes.items() if len(episode) < 2]:
        left_out[ALONE] += len(episodes.pop(name))


def _learnt_before(known: Pretrained, episodes: Episodes, left_out: Counter[str]) -> Episodes:
    """What a trained agent learnt from, but for what the stores hold themselves."""
    before: Episodes = {}
    stored = {_mark(transition) for episode in episodes.values() for transition in episode}
    for number, transition in known.replayed():
        if _mark(transition) in stored:
            left_out[TWICE] += 1
        else:
            before.setdefault((f"run {number}", LEARNT_BEFORE), []).append(transition)
    _leave_out_alone(before, left_out)
    return before


def _mark(transition: Transition) -> bytes:
    """What tells a transition from others, in the precision that a trained agent's file has."""
    parts = (transition.state, transition.action, [transition.reward])
    return np.concatenate(parts).astype(np.float32).tobytes()


def _linked(episode: Sequence[Transition]) -> tuple[Transition, ...]:
    """Each transition with the state in which the next one of its run was taken."""
    following = [*(step.state for step in episode[1:]), episode[-1].state]
    return tuple(
        replace(step, next_state=state) for step, state in zip(episode, following, strict=True)
    )


def _refuse(total: int, where: str, left_out: Mapping[str, int]) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    most = max(left_out, key=lambda reason: left_out[reason])
    raise AutopilotError(
        f"none of the {total} transitions in {where} can be used: {reasons}",
        remedy=_REMEDIES.get(most, "let the tuner measure for a while, or name another store"),
    )
