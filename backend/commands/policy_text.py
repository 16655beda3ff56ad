"""Policy versions in words and as JSON, for the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.domain.knobs import KnobValue
from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import KnobStatusRecord, TrialRecord
from backend.domain.steering import ServedHint
from backend.domain.version_difference import VersionDifference, difference
from backend.telemetry.codec import to_document
from backend.telemetry.wording import NOTHING, interval, knob_text, moment, number, percent

Units = Mapping[str, str | None]
"""Knob → unit of its native value."""

_NAMED = 2
"""So many changed knobs are named in a line."""
_SHOWN = 100
_DIGITS = 12


def units_of(statuses: Sequence[KnobStatusRecord]) -> Units:
    """The units of the knobs that the tuner saw last."""
    return {status.name: status.unit for status in statuses}


def in_short(found: VersionDifference, units: Units) -> str:
    """What differs, in a line."""
    parts = [
        f"{name} {knob_text(after, units.get(name))}"
        for name, (_, after) in list(found.knobs.items())[:_NAMED]
    ]
    if len(found.knobs) > _NAMED:
        parts.append(f"{len(found.knobs) - _NAMED} more knobs")
    gone = sum(after is None for _, after in found.hint_sets.values())
    if served := len(found.hint_sets) - gone:
        parts.append(f"{served} hint set{'s' * (served > 1)} served")
    if gone:
        parts.append(f"{gone} hint set{'s' * (gone > 1)} withdrawn")
    parts += [f"{name} {'learnt' if after else 'dropped'}" for name, (_, after) in
              found.weights.items()]  # fmt: skip
    return ", ".join(parts) or NOTHING


def list_cells(
    version: PolicyVersionRecord, parent: PolicyVersionRecord | None, units: Units
) -> list[str]:
    """A row: id, time, author, change against the parent, index, whether it is active."""
    return [
        str(version.id),
        moment(version.created_at),
        version.author,
        in_short(difference(parent, version), units),
        number(version.index),
        "active" if version.active else "",
    ]


def version_lines(
    version: PolicyVersionRecord,
    parent: PolicyVersionRecord | None,
    trial: TrialRecord | None,
    units: Units,
) -> Iterator[str]:
    """All of a version, with its evidence."""
    yield f"Policy version {version.id}{', active' if version.active else ''}"
    yield f"  made           {moment(version.created_at)} by {version.author}"
    yield f"  because        {version.note or NOTHING}"
    yield f"  parent         {version.parent_id or 'none: its lineage begins here'}"
    yield f"  latency index  {number(version.index)} (1 at the start of its workload)"
    yield f"  trial          {_trial(version, trial)}"
    yield "Knobs" if version.config else "Knobs: the server's own configuration"
    for name, value in sorted(version.config.items()):
        yield f"  {name} = {knob_text(value, units.get(name))}"
    yield "Hint sets" if version.steering else "Hint sets: none"
    for hint in version.steering:
        yield from _hint_lines(hint)
    yield "Weights" if version.weights else "Weights: none"
    for name, file in sorted(version.weights.items()):
        yield f"  {name}: {_short(file)}"
    if parent is not None:
        yield f"Against version {parent.id}"
        yield from difference_lines(difference(parent, version), units)


def difference_lines(found: VersionDifference, units: Units) -> Iterator[str]:
    """What differs, a line each."""
    if not found:
        yield "  nothing differs"
    for name, (before, after) in found.knobs.items():
        unit = units.get(name)
        yield f"  {name}: {_value(before, unit)} -> {_value(after, unit)}"
    for key, (served, serves) in found.hint_sets.items():
        yield f"  class {key.fingerprint}: {_served(served)} -> {_served(serves)}"
    for name, (old, new) in found.weights.items():
        yield f"  weights of the {name}: {_short(old)} -> {_short(new)}"


def list_document(
    versions: Sequence[PolicyVersionRecord],
    parents: Mapping[int | None, PolicyVersionRecord],
    units: Units,
) -> list[dict[str, Any]]:
    """The versions as JSON, each with what it changed."""
    return [
        {
            "id": version.id,
            "created_at": moment_of(version),
            "author": version.author,
            "note": version.note,
            "parent_id": version.parent_id,
            "trial_id": version.trial_id,
            "index": version.index,
            "active": version.active,
            "changed": difference_document(
                difference(parents.get(version.parent_id), version), units
            ),
        }
        for version in versions
    ]


def version_document(version: PolicyVersionRecord, trial: TrialRecord | None) -> dict[str, Any]:
    """A version as JSON, with its trial."""
    evidence = None if trial is None else to_document(trial)
    return {"version": to_document(version), "trial": evidence}


def difference_document(found: VersionDifference, units: Units) -> dict[str, Any]:
    """What differs as JSON; values are native, ``null`` the server's own."""
    return {
        "knobs": {
            name: {"from": before, "to": after, "unit": units.get(name)}
            for name, (before, after) in found.knobs.items()
        },
        "hint_sets": [
            {
                "fingerprint": key.fingerprint,
                "search_path": key.search_path,
                "from": _hint_document(before),
                "to": _hint_document(after),
            }
            for key, (before, after) in found.hint_sets.items()
        ],
        "weights": {
            name: {"from": before or None, "to": after or None}
            for name, (before, after) in found.weights.items()
        },
    }


def moment_of(version: PolicyVersionRecord) -> str:
    """When it was made, with the zone, as JSON writes times."""
    return str(to_document(version)["created_at"])


def _trial(version: PolicyVersionRecord, trial: TrialRecord | None) -> str:
    if version.trial_id is None:
        return "none: it was not proven by one"
    if trial is None:
        return f"{version.trial_id}, no longer kept"
    verdict = trial.verdict.value if trial.verdict is not None else "running"
    bounds = interval(trial.ci_low, trial.ci_high, signed=True)
    effect = f"{percent(trial.effect, signed=True)} latency index"
    sure = f" ({bounds}, at {trial.confidence * 100:g} % confidence)" if bounds else ""
    reasons = f"; {'; '.join(trial.reasons)}" if trial.reasons else ""
    return f"{trial.id}, {trial.kind.value}: {verdict}, {effect}{sure}{reasons}"


def _hint_lines(hint: ServedHint) -> Iterator[str]:
    evidence = hint.evidence
    settings = ", ".join(f"{name} = {value}" for name, value in sorted(evidence.settings.items()))
    bounds = interval(evidence.ci_low, evidence.ci_high, signed=True)
    yield f"  {hint.key.fingerprint} {evidence.hint_set} ({settings})" + (
        ", pinned" if hint.pinned else ""
    )
    yield (
        f"    {percent(evidence.effect, signed=True)} time ({bounds}) in {evidence.pairs} pairs of "
        f"runs of {evidence.statements} statements, verified {moment(evidence.verified_at)}"
    )
    text = " ".join("".join(c if c.isprintable() else " " for c in hint.text).split())
    yield f"    {text if len(text) <= _SHOWN else f'{text[: _SHOWN - 1]}…'}"


def _value(value: KnobValue | None, unit: str | None) -> str:
    return "the server's own" if value is None else knob_text(value, unit)


def _served(hint: ServedHint | None) -> str:
    if hint is None:
        return "the default plan"
    evidence = hint.evidence
    proof = f"{percent(evidence.effect, signed=True)} time, {moment(evidence.verified_at)}"
    return f"{evidence.hint_set}{', pinned' if hint.pinned else ''} ({proof})"


def _short(file: str) -> str:
    """A file of weights by the beginning of its name, which is a digest."""
    return file[:_DIGITS] or "none"


def _hint_document(hint: ServedHint | None) -> dict[str, Any] | None:
    if hint is None:
        return None
    evidence = hint.evidence
    return {
        "hint_set": evidence.hint_set,
        "settings": dict(evidence.settings),
        "pinned": hint.pinned,
        "effect": evidence.effect,
        "ci_low": evidence.ci_low,
        "ci_high": evidence.ci_high,
        "verified_at": to_document(evidence)["verified_at"],
    }
