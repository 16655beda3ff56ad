"""What going to a policy version means for the query classes.

A hint set that the version served is served again where its proof still counts here; where it does
not, the class is to be proven anew. What the version did not serve is withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from backend.domain.policies import PolicyVersionRecord
from backend.domain.steering import (
    ClassKey,
    DatabaseIdentity,
    HintEvidence,
    ServedHint,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)

SET_ASIDE = "not served by policy version "
"""A reason of a withdrawal that begins so says nothing against the hint set."""


@dataclass(frozen=True)
class Restoring:
    """What changes of the classes, and what stands then.

    Args:
        records: the classes that change.
        again: served again; ``anew``: not served, and why; ``withdrawn``: served no longer.
        served: all that is served then.
    """

    records: tuple[SteeredClassRecord, ...]
    again: tuple[ServedHint, ...]
    anew: tuple[tuple[ServedHint, str], ...]
    withdrawn: tuple[ServedHint, ...]
    served: tuple[ServedHint, ...]

    @property
    def told(self) -> Sequence[str]:
        """What became of the hint sets, for people."""
        told = []
        if self.again:
            told.append(f"served again: {_hint_sets(len(self.again))}")
        if self.withdrawn:
            told.append(f"withdrawn: {_hint_sets(len(self.withdrawn))}")
        if self.anew:
            anew = [f"{hint.key.fingerprint} ({why})" for hint, why in self.anew]
            told.append(f"to be proven anew: {', '.join(anew)}")
        return told


def restoring(
    present: Mapping[ClassKey, SteeredClassRecord],
    version: PolicyVersionRecord,
    *,
    home: DatabaseIdentity | None,
    in_force: Mapping[str, str] | None,
    now: datetime,
) -> Restoring:
    """See the module's text.

    Args:
        present: the classes by key.
        version: where to go.
        home: the database that hint sets are served in.
        in_force: planner setting → value, as ``SHOW`` prints it, once the version's knobs stand;
            None where nobody could tell.
        now: the present moment.
    """
    records: list[SteeredClassRecord] = []
    again: list[ServedHint] = []
    anew: list[tuple[ServedHint, str]] = []
    for hint in version.steering:
        record = present.get(hint.key)
        if record is not None and record.hint is not None:
            if record.hint.identity == hint.identity:
                continue  # it goes on
            same_proof = replace(hint, pinned=record.hint.pinned).identity == record.hint.identity
        else:
            same_proof = False
        known = record or SteeredClassRecord(hint.key, hint.text, SteeringState.WAITING, now)
        against = "" if same_proof else _against(hint.evidence, known, home, in_force)
        if against:
            anew.append((hint, against))
            changes = {
                "state": SteeringState.WITHDRAWN,
                "mode": SteeringMode.AUTO,
                "reason": f"to be proven anew: {against}",
            }
        else:
            again.append(hint)
            changes = {
                "state": SteeringState.VERIFIED,
                "mode": SteeringMode.PIN if hint.pinned else SteeringMode.AUTO,
                "reason": "",
            }
        records.append(
            replace(known, **changes, evidence=hint.evidence, updated_at=now)  # type: ignore[arg-type]
        )
    wanted = {hint.key for hint in version.steering}
    withdrawn = [r for r in present.values() if r.key not in wanted and r.hint is not None]
    records += [
        replace(
            record,
            state=SteeringState.WITHDRAWN,
            mode=SteeringMode.AUTO,
            reason=f"{SET_ASIDE}{version.id}",
            updated_at=now,
        )
        for record in withdrawn
    ]
    return Restoring(
        records=tuple(records),
        again=tuple(again),
        anew=tuple(anew),
        withdrawn=tuple(r.hint for r in withdrawn if r.hint is not None),
        served=hints_of({**present, **{r.key: r for r in records}}.values()),
    )


def hints_of(classes: Iterable[SteeredClassRecord]) -> tuple[ServedHint, ...]:
    """What a policy version holds of classes, by key."""
    by_key = sorted(classes, key=lambda record: record.key)
    return tuple(record.hint for record in by_key if record.hint is not None)


def _against(
    evidence: HintEvidence,
    record: SteeredClassRecord,
    home: DatabaseIdentity | None,
    in_force: Mapping[str, str] | None,
) -> str:
    """Why a proof does not count here and now, for people; "" where it does."""
    if home is not None and evidence.home != home:
        return "it was proven in another database"
    if in_force is None:
        return "the planner settings in force could not be read"
    under = {**evidence.under, **evidence.settings_in_force}
    for name, value in sorted(under.items()):
        if in_force.get(name, value) != value:
            return f"it was proven under {name} = {value}, and {in_force[name]} is in force"
    if record.state in (SteeringState.DEFAULT_BEST, SteeringState.REFUSED):
        return f"since then: {record.reason or record.state.value}"
    judged = record.state in (SteeringState.WITHDRAWN, SteeringState.EXPLORING)
    if judged and record.evidence == evidence and not record.reason.startswith(SET_ASIDE):
        return f"since then: {record.reason or 'it was withdrawn'}"
    return ""


def _hint_sets(count: int) -> str:
    return f"{count} hint set{'s' * (count != 1)}"
