"""What one policy version changed against another, and what was undone by it. All pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backend.domain.knobs import KnobValue
from backend.domain.policies import PolicyVersionRecord
from backend.domain.steering import ClassKey, ServedHint

Part = tuple[str, object]
"""Of a deployed state: ``("knob", name)``, ``("hint set", class key)`` or ``("weights", name)``."""

State = frozenset[tuple[Part, object]]


@dataclass(frozen=True)
class VersionChange:
    """What differs between two deployed states; None stands for "not there".

    Args:
        knobs: name -> value before and after.
        hint_sets: query class -> the hint set served before and after.
        weights: what they are of -> file before and after.
    """

    knobs: Mapping[str, tuple[KnobValue | None, KnobValue | None]] = field(default_factory=dict)
    hint_sets: Mapping[ClassKey, tuple[ServedHint | None, ServedHint | None]] = field(
        default_factory=dict
    )
    weights: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.knobs or self.hint_sets or self.weights)


def change_between(before: PolicyVersionRecord, after: PolicyVersionRecord) -> VersionChange:
    """What changes where ``before`` stands and ``after`` is deployed."""
    old, new = ({h.key: h for h in version.steering} for version in (before, after))
    return VersionChange(
        knobs={
            name: (before.config.get(name), after.config.get(name))
            for name in {**before.config, **after.config}
            if before.config.get(name) != after.config.get(name)
        },
        hint_sets={
            key: (old.get(key), new.get(key))
            for key in {**old, **new}
            if _identity(old.get(key)) != _identity(new.get(key))
        },
        weights={
            name: (before.weights.get(name), after.weights.get(name))
            for name in {**before.weights, **after.weights}
            if before.weights.get(name) != after.weights.get(name)
        },
    )


def earliest_of_each_state(versions: Sequence[PolicyVersionRecord]) -> Mapping[State, int]:
    """The first version, by id, that stood for a state; ``versions`` are oldest first."""
    first: dict[State, int] = {}
    for version in versions:
        if version.id is not None:
            first.setdefault(state_of(version), version.id)
    return first


def state_of(version: PolicyVersionRecord) -> State:
    """All that a version stands for, equal for equal states."""
    return frozenset(_parts(version).items())


@dataclass(frozen=True)
class Undoing:
    """A version that took back what earlier ones had deployed.

    Args:
        by: the version.
        undone: those whose changes it took back, oldest first.
    """

    by: PolicyVersionRecord
    undone: tuple[PolicyVersionRecord, ...]


def undoings(versions: Sequence[PolicyVersionRecord]) -> list[Undoing]:
    """The versions that took something back, oldest first.

    A version is one where every part that it changed has the value again that stood before the
    change that it takes back: of a whole version, or of some knobs or hint sets alone.
    """
    parents = {version.id: version for version in versions}
    states = {version.id: _parts(version) for version in versions}
    found = []
    for version in versions:
        parent = parents.get(version.parent_id)
        if parent is None:
            continue
        present, new = states[parent.id], states[version.id]
        changed = [p for p in {**present, **new} if present.get(p) != new.get(p)]
        origins = [_origin(p, parent, new.get(p), parents, states) for p in changed]
        undone = {origin.id: origin for origin in origins if origin is not None}
        if changed and None not in origins:
            ordered = sorted(undone.values(), key=lambda v: v.id or 0)
            found.append(Undoing(version, tuple(ordered)))
    return found


def _origin(
    part: Part,
    version: PolicyVersionRecord,
    wanted: object,
    parents: Mapping[int | None, PolicyVersionRecord],
    states: Mapping[int | None, Mapping[Part, object]],
) -> PolicyVersionRecord | None:
    """The version that gave a part the value it has in ``version``, if ``wanted`` stood before."""
    value = states[version.id].get(part)
    while (parent := parents.get(version.parent_id)) is not None:
        before = states[parent.id].get(part)
        if before != value:
            return version if before == wanted else None
        version = parent
    return None


def _parts(version: PolicyVersionRecord) -> dict[Part, object]:
    parts: dict[Part, object] = {("knob", name): v for name, v in version.config.items()}
    parts |= {("hint set", hint.key): hint.identity for hint in version.steering}
    return parts | {("weights", name): file for name, file in version.weights.items()}


def _identity(hint: ServedHint | None) -> object:
    return None if hint is None else hint.identity
