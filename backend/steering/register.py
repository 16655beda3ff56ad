"""What stands for each query class: the one place where it changes, kept in the store.

Shared by the explorer, which proves hint sets, by the service, which watches them and carries out
what operators want, and by the tuner, which goes back to earlier versions of it. Each runs in a
thread of its own. A change of what is served makes a policy version.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from backend.domain.modes import Mode
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
from backend.errors import SteeringError
from backend.policy_versions import STEERING, PolicyVersions
from backend.protocols import Clock, Store
from backend.steering.restoring import Restoring, hints_of, restoring


class SteeringRegister:
    """The query classes that are known, by key.

    A change is stored first and counts then; where the store fails, nothing has changed.

    Args:
        store: holds the records over restarts.
        clock: time.
        home: the database that hint sets are proven for and served in; None where neither is done.
        versions: of what is deployed; None where nothing is.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        home: DatabaseIdentity | None = None,
        versions: PolicyVersions | None = None,
    ) -> None:
        self._store, self._clock, self._home = store, clock, home
        self._versions = versions
        self._lock = threading.RLock() if versions is None else versions.lock
        self._classes = {record.key: record for record in store.steered_classes()}

    def classes(self) -> tuple[SteeredClassRecord, ...]:
        """All of them, ordered by key."""
        with self._lock:
            return tuple(self._classes[key] for key in sorted(self._classes))

    def get(self, key: ClassKey) -> SteeredClassRecord | None:
        """What stands for a class; None where it is not known."""
        with self._lock:
            return self._classes.get(key)

    def add(self, key: ClassKey, text: str) -> SteeredClassRecord:
        """Make a class known; what is known of it already stands.

        Args:
            key: the class.
            text: its statement without literals.
        """
        with self._lock:
            if key not in self._classes:
                self._save(SteeredClassRecord(key, text, SteeringState.WAITING, self._clock.now()))
            return self._classes[key]

    def forget(self, records: Iterable[SteeredClassRecord]) -> None:
        """Make classes unknown again, but for those that have changed since they were looked at.

        Raises:
            StoreError: the store failed; nothing is forgotten.
        """
        with self._lock:
            keys = [record.key for record in records if self._classes.get(record.key) == record]
            if keys:
                self._store.delete_steered_classes(keys)
            for key in keys:
                del self._classes[key]

    def update(self, key: ClassKey, **changes: Any) -> SteeredClassRecord:
        """Change fields of a class's record; ``updated_at`` follows.

        Raises:
            SteeringError: the class is not known.
        """
        with self._lock:
            return self._change(key, **changes)

    def verify(
        self, key: ClassKey, evidence: HintEvidence, expected: SteeredClassRecord | None = None
    ) -> SteeredClassRecord | None:
        """A hint set was proven faster, in the database that this register is for.

        Args:
            key: the class.
            evidence: of the hint set.
            expected: what stood when that was asked last; where state, mode or evidence are others
                by now, nothing changes. None: whatever stands.

        Returns:
            What stands now; None where nothing changed.

        Raises:
            SteeringError: the class is not known.
        """
        if self._home is not None:
            home = self._home
            evidence = replace(evidence, server=home.server, database=home.database)
        with self._lock:
            if expected is not None and _decided(self._known(key)) != _decided(expected):
                return None
            return self._change(key, state=SteeringState.VERIFIED, reason="", evidence=evidence)

    def withdraw(
        self, key: ClassKey, reason: str, evidence: HintEvidence | None = None
    ) -> SteeredClassRecord:
        """A verified hint set may no longer be served.

        Args:
            key: the class.
            reason: for people.
            evidence: of the hint set that is meant; where another one stands by now, nothing
                changes. None: whichever stands.

        Raises:
            SteeringError: the class is not known.
        """
        with self._lock:
            record = self._known(key)
            if evidence is not None and evidence != record.evidence:
                return record
            return self._change(key, state=SteeringState.WITHDRAWN, reason=reason)

    def proven_elsewhere(self) -> tuple[SteeredClassRecord, ...]:
        """What is verified or pinned, on evidence that was made for another database."""
        return tuple(
            record
            for record in self.classes()
            if self._elsewhere(record)
            and (record.state is SteeringState.VERIFIED or record.mode is SteeringMode.PIN)
        )

    def withdraw_proven_elsewhere(self) -> None:
        """Have everything proven anew that was made for another database, pinned or not."""
        for record in self.proven_elsewhere():
            changes: dict[str, Any] = {
                "state": SteeringState.WITHDRAWN,
                "reason": f"proven {self._elsewhere(record)}",
            }
            if record.mode is SteeringMode.PIN:
                changes["mode"] = SteeringMode.AUTO
                changes["reason"] += "; its pin does not count here"
            self.update(record.key, **changes)

    def set_mode(
        self, key: ClassKey, mode: SteeringMode, author: str = "operator"
    ) -> SteeredClassRecord:
        """An operator decides.

        Args:
            key: the class.
            mode: what they want.
            author: who they are.

        Raises:
            SteeringError: the class is not known, or is pinned without a hint set that was ever
                proven faster here.
        """
        with self._lock:
            record = self._known(key)
            if mode is SteeringMode.PIN and record.evidence is None:
                raise SteeringError(
                    f"no hint set was proven faster for {key.fingerprint} yet, so none is pinned",
                    remedy="wait until it was explored, or choose auto or off",
                )
            elsewhere = self._elsewhere(record)
            if mode is SteeringMode.PIN and elsewhere:
                raise SteeringError(
                    f"the hint set of {key.fingerprint} was proven {elsewhere}",
                    remedy="wait until it was explored here, or choose auto or off",
                )
            return self._change(key, author, mode=mode)

    def hints(self) -> tuple[ServedHint, ...]:
        """What a policy version holds of the classes."""
        return hints_of(self.classes())

    def restoring(
        self, version: PolicyVersionRecord, in_force: Mapping[str, str] | None
    ) -> Restoring:
        """What going to a version changes here; nothing changes before :meth:`restored`.

        The caller holds the versions' lock from here to there, and stores the records between.

        Args:
            version: where to go.
            in_force: planner settings, once its knobs stand; None where nobody could tell.
        """
        return restoring(
            self._classes, version, home=self._home, in_force=in_force, now=self._clock.now()
        )

    def restored(self, done: Restoring) -> None:
        """What :meth:`restoring` told is stored by now."""
        with self._lock:
            self._classes.update({record.key: record for record in done.records})

    def served(self, mode: Mode) -> tuple[SteeredClassRecord, ...]:
        """The classes that are steered now."""
        return tuple(record for record in self.classes() if record.is_served(mode))

    def _elsewhere(self, record: SteeredClassRecord) -> str:
        """Where else its evidence was made; "" for none, or evidence of this database."""
        home, evidence = self._home, record.evidence
        if home is None or evidence is None or evidence.home == home:
            return ""
        there = evidence.home
        if not there.server:
            return "on another server, as far as anybody knows: it was not written down which"
        if there.server == home.server:
            return f"in another database: {there.database}, and this is {home.database}"
        return f"on another server: {there.server}, and this is {home.server}"

    def _known(self, key: ClassKey) -> SteeredClassRecord:
        record = self._classes.get(key)
        if record is None:
            raise SteeringError(
                f"no query class {key.fingerprint:.40} under search_path {key.search_path!r:.80}",
                remedy="name one that the page Queries shows",
            )
        return record

    def _change(self, key: ClassKey, author: str = STEERING, **changes: Any) -> SteeredClassRecord:
        changed = replace(self._known(key), **changes, updated_at=self._clock.now())
        self._save(changed, author)
        return changed

    def _save(self, record: SteeredClassRecord, author: str = STEERING) -> None:
        former = self._classes.get(record.key)
        note = _what_changed(former, record)
        with self._together(bool(note)):
            self._store.save_steered_classes([record])
            if note and self._versions is not None and self._versions.active is not None:
                classes = {**self._classes, record.key: record}.values()
                self._versions.succeed(author, note, steering=hints_of(classes))
        self._classes[record.key] = record

    def _together(self, makes_a_version: bool) -> AbstractContextManager[None]:
        if self._versions is None or not makes_a_version:
            return nullcontext()
        return self._versions.together()


def _decided(record: SteeredClassRecord) -> tuple[object, ...]:
    """What people and judgements change of a record."""
    return record.state, record.mode, record.evidence


def _what_changed(former: SteeredClassRecord | None, record: SteeredClassRecord) -> str:
    """What a record's change means for what is served, for people; "" for nothing."""
    before, now = former.hint if former is not None else None, record.hint
    name = record.key.fingerprint
    if now is None:
        if before is None:
            return ""
        why = record.reason or record.state.value
        if record.mode is SteeringMode.OFF:
            why = "switched off"
        return f"{before.evidence.hint_set} is not served for {name} any more: {why}"
    evidence = now.evidence
    if before is not None and before.identity == now.identity:
        return ""
    if before is not None and before.pinned is not now.pinned:
        return (
            f"{evidence.hint_set} for {name} {'pinned' if now.pinned else 'left to the autopilot'}"
        )
    low, high = -100.0 * evidence.ci_high, -100.0 * evidence.ci_low
    return f"{evidence.hint_set} for {name}: {low:.0f} to {high:.0f} % less time"
