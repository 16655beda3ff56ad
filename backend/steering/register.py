"""What stands for each query class: the one place where it changes, kept in the store.

Shared by the explorer, which proves hint sets, and by the service, which watches them and carries
out what operators want. Each runs in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from backend.domain.modes import Mode
from backend.domain.steering import (
    ClassKey,
    DatabaseIdentity,
    HintEvidence,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.errors import SteeringError
from backend.protocols import Clock, Store


class SteeringRegister:
    """The query classes that are known, by key.

    A change is stored first and counts then; where the store fails, nothing has changed.

    Args:
        store: holds the records over restarts.
        clock: time.
        home: the database that hint sets are proven for and served in; None where neither is done.
    """

    def __init__(self, store: Store, clock: Clock, home: DatabaseIdentity | None = None) -> None:
        self._store, self._clock, self._home = store, clock, home
        self._lock = threading.Lock()
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

    def set_mode(self, key: ClassKey, mode: SteeringMode) -> SteeredClassRecord:
        """An operator decides.

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
            return self._change(key, mode=mode)

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

    def _change(self, key: ClassKey, **changes: Any) -> SteeredClassRecord:
        changed = replace(self._known(key), **changes, updated_at=self._clock.now())
        self._save(changed)
        return changed

    def _save(self, record: SteeredClassRecord) -> None:
        self._store.save_steered_classes([record])
        self._classes[record.key] = record


def _decided(record: SteeredClassRecord) -> tuple[object, ...]:
    """What people and judgements change of a record."""
    return record.state, record.mode, record.evidence
