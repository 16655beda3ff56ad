"""What differs between two policy versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.domain.knobs import KnobValue
from backend.domain.policies import PolicyVersionRecord
from backend.domain.steering import ClassKey, ServedHint


@dataclass(frozen=True)
class VersionDifference:
    """From one version to another; empty mappings where nothing differs.

    Args:
        knobs: name → values before and after; None: the server's own.
        hint_sets: query class → what is served before and after; None: nothing.
        weights: name → files before and after; "": none.
    """

    knobs: Mapping[str, tuple[KnobValue | None, KnobValue | None]]
    hint_sets: Mapping[ClassKey, tuple[ServedHint | None, ServedHint | None]]
    weights: Mapping[str, tuple[str, str]]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.knobs or self.hint_sets or self.weights)


def difference(former: PolicyVersionRecord | None, later: PolicyVersionRecord) -> VersionDifference:
    """What is different in ``later``; None: everything that it holds."""
    knobs = former.config if former is not None else {}
    hints = {hint.key: hint for hint in former.steering} if former is not None else {}
    weights = former.weights if former is not None else {}
    later_hints = {hint.key: hint for hint in later.steering}
    return VersionDifference(
        knobs={
            name: (knobs.get(name), later.config.get(name))
            for name in sorted({*knobs, *later.config})
            if knobs.get(name) != later.config.get(name)
        },
        hint_sets={
            key: (hints.get(key), later_hints.get(key))
            for key in sorted({*hints, *later_hints})
            if _identity(hints.get(key)) != _identity(later_hints.get(key))
        },
        weights={
            name: (weights.get(name, ""), later.weights.get(name, ""))
            for name in sorted({*weights, *later.weights})
            if weights.get(name, "") != later.weights.get(name, "")
        },
    )


def _identity(hint: ServedHint | None) -> tuple[object, ...]:
    return () if hint is None else hint.identity
