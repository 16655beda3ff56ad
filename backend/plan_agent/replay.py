"""The plan agent's experience replay: what was measured, with the plans of all steps to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.plan_agent import toggles
from backend.plan_agent.states import (
    FloatArray,
    Hashes,
    Outcome,
    QueryRecord,
    StateEncoder,
    Step,
    ToggleSet,
)

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Transitions:
    """Everything recorded, as arrays; ``n`` transitions between ``rows`` states.

    Args:
        states: shape ``(rows, width)``.
        dearer: shape ``(rows,)``, see :func:`backend.plan_agent.toggles.dearer`.
        recorded: shape ``(rows, actions)``, the actions that were recorded in each state.
        origin, target: shape ``(n,)``, rows of the states before and after (any after a stop).
        actions: shape ``(n,)``; the last action is to stop.
        rewards: shape ``(n,)``.
        stops, censored, default, fresh: shape ``(n,)``, whether it ends the search; its reward is
            an upper bound; it stops at the default plan; nothing was known to be measured yet.
        classes, statements: shape ``(n,)``, numbers of the class and of the statement.
        seen_by: shape ``(members, n)``, false for networks that are kept from the class.
    """

    states: FloatArray
    dearer: FloatArray
    recorded: NDArray[np.bool_]
    origin: IntArray
    target: IntArray
    actions: IntArray
    rewards: FloatArray
    stops: NDArray[np.bool_]
    censored: NDArray[np.bool_]
    default: NDArray[np.bool_]
    fresh: NDArray[np.bool_]
    classes: IntArray
    statements: IntArray
    seen_by: NDArray[np.bool_]

    def draw(self, updates: int, batch_size: int, rng: np.random.Generator) -> IntArray:
        """Transitions for each update: as many stops as steps, since only stops were measured."""
        odds = np.zeros(len(self.stops))
        for kind in (self.stops, ~self.stops):
            odds[kind] = 1.0 / max(kind.sum(), 1)
        return rng.choice(len(odds), size=(updates, batch_size), p=odds / odds.sum())


class PlanReplay:
    """What was measured of each class's statements, and the plans around it.

    Args:
        capacity: plans; the statement told longest ago is forgotten first.

    Attributes:
        records: by query class and hash of the default plan.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.records: dict[tuple[str, str], QueryRecord] = {}

    def keep(self, query_class: str, record: QueryRecord) -> None:
        """Keep a record as the one told last."""
        key = (query_class, record.default_hash)
        self.records.pop(key, None)
        self.records[key] = record
        while len(self.records) > 1 and self.plans > self.capacity:
            del self.records[next(iter(self.records))]

    def of_class(self, query_class: str) -> list[QueryRecord]:
        """The records of a class."""
        return [record for (name, _), record in self.records.items() if name == query_class]

    @property
    def plans(self) -> int:
        """How many plans are kept."""
        return sum(len(record.steps) for record in self.records.values())

    @property
    def outcomes(self) -> int:
        """How many measured plans are kept, default plans aside."""
        return sum(len(record.outcomes) for record in self.records.values())

    def transitions(
        self, encoder: StateEncoder, step_cost: float, rng: np.random.Generator
    ) -> Transitions:
        """All stops, and all steps between plans of one statement that differ by one toggle.

        Each is told twice: with nothing measured, as of a new class, and with a random part of
        the class's outcomes known, as of one that is being explored.
        """
        some: dict[str, Known] = {}
        for query_class in dict.fromkeys(name for name, _ in self.records):
            share = rng.random()
            some[query_class] = [
                (record, frozenset(h for h in record.outcomes if rng.random() < share))
                for record in self.of_class(query_class)
            ]
        states: list[FloatArray] = []
        dearer: list[float] = []
        recorded: list[NDArray[np.bool_]] = []
        moves: list[_Move] = []
        classes, statements, fresh, seen_by = [], [], [], []
        number_of = {query_class: number for number, query_class in enumerate(some)}
        for number, ((query_class, _), record) in enumerate(self.records.items()):
            masks = _masks(record, encoder.toggles)
            for known in ([], some[query_class]):
                found = list(_moves(record, masks, step_cost, len(states)))
                moves += found
                states += _states(record, encoder, known)
                dearer += [toggles.dearer(on, record.steps) for on in record.steps]
                recorded += masks.values()
                classes += [number_of[query_class]] * len(found)
                statements += [number] * len(found)
                fresh += [not known] * len(found)
                seen_by += [~record.left_out] * len(found)
        columns = dict(zip(_Move._fields, map(np.array, zip(*moves, strict=True)), strict=True))
        return Transitions(
            np.array(states),
            np.array(dearer),
            np.array(recorded),
            **columns,
            fresh=np.array(fresh),
            classes=np.array(classes),
            statements=np.array(statements),
            seen_by=np.array(seen_by).T,
        )

    # -- checkpoints ------------------------------------------------------------------------

    def about(self) -> list[dict[str, Any]]:
        """What JSON can hold of it; the plans' numbers are in :meth:`features`."""
        return [
            {
                "class": query_class,
                "default": record.default_hash,
                "left_out": [bool(flag) for flag in record.left_out],
                "steps": [[sorted(on), step.plan_hash] for on, step in record.steps.items()],
                "outcomes": [[h, o.gain, o.censored] for h, o in record.outcomes.items()],
            }
            for (query_class, _), record in self.records.items()
        ]

    def features(self, width: int) -> FloatArray:
        """The plans' numbers in the order of :meth:`about`, shape ``(plans, width)``."""
        rows = [s.features for r in self.records.values() for s in r.steps.values()]
        return np.array(rows).reshape(len(rows), width)

    def restore(self, about: list[Mapping[str, Any]], features: FloatArray) -> None:
        """Continue from what :meth:`about` and :meth:`features` gave.

        Raises:
            ValueError, KeyError, TypeError: they are damaged, or do not belong together.
        """
        rows = iter(features)
        self.records = {
            (str(item["class"]), str(item["default"])): QueryRecord(
                default_hash=str(item["default"]),
                left_out=np.array(item["left_out"], np.bool_),
                steps={
                    frozenset(map(int, on)): Step(str(plan_hash), next(rows))
                    for on, plan_hash in item["steps"]
                },
                outcomes={
                    str(h): Outcome(float(gain), bool(censored))
                    for h, gain, censored in item["outcomes"]
                },
            )
            for item in about
        }
        if self.plans != len(features):
            raise ValueError(f"{len(features)} plans for {self.plans} steps")


Known = list[tuple[QueryRecord, Hashes]]
"""The records of a class, each with the outcomes of it that are known."""


def _states(record: QueryRecord, encoder: StateEncoder, known: Known) -> list[FloatArray]:
    """A state for each step of a statement, with these outcomes of its class known."""
    of_class = encoder.known(known)
    own = {h: record.outcomes[h] for other, hashes in known if other is record for h in hashes}
    return [encoder(record.default, step, on, own, of_class) for on, step in record.steps.items()]


Masks = dict[ToggleSet, NDArray[np.bool_]]
"""The actions that were recorded in each state of a statement; the last action is to stop."""


def _masks(record: QueryRecord, toggles: int) -> Masks:
    """Which actions lead to something measured, in the order of the record's steps."""
    masks = {on: np.zeros(toggles + 1, np.bool_) for on in record.steps}
    for on in sorted(record.steps, key=len, reverse=True):
        plan_hash = record.steps[on].plan_hash
        masks[on][-1] = plan_hash in record.outcomes or plan_hash == record.default_hash
        if masks[on].any():
            for toggle in on:
                if (before := on - {toggle}) in masks:
                    masks[before][toggle] = True
    return masks


class _Move(NamedTuple):
    """One of the :class:`Transitions`."""

    origin: int
    target: int
    actions: int
    rewards: float
    stops: bool
    censored: bool
    default: bool


def _moves(record: QueryRecord, masks: Masks, step_cost: float, first: int) -> Iterator[_Move]:
    """The transitions of a statement whose states begin at row ``first``.

    Steps that lead to one plan are one stop only: the one with the fewest toggles.
    """
    row_of = {on: row for row, on in enumerate(record.steps, start=first)}
    stop = len(masks[frozenset()]) - 1
    stopped: set[str] = set()
    for on in sorted(record.steps, key=len):
        plan_hash = record.steps[on].plan_hash
        is_default = plan_hash == record.default_hash
        for action in map(int, np.flatnonzero(masks[on])):
            if action != stop:
                target = row_of[on | {action}]
                yield _Move(row_of[on], target, action, -step_cost, False, False, False)
            elif plan_hash not in stopped:
                stopped.add(plan_hash)
                told = record.outcomes.get(plan_hash, Outcome(0.0))
                yield _Move(row_of[on], first, stop, told.gain, True, told.censored, is_default)
