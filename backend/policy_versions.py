"""The versions of what is deployed: knobs, served hint sets, learned weights.

Whatever changes what is deployed makes a version in the same transaction of the store: both or
neither. What a change does not name stays as the active version has it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import EventRecord
from backend.errors import ConfigError
from backend.protocols import Clock, Store

AUTOPILOT = "autopilot"
"""The author of what a promotion of knobs has proven."""
STEERING = "query steering"
"""The author of what the search for better plans, or the watch over them, has found."""
ALL_VERSIONS = 5000
"""So many of the newest policy versions are looked through; older ones are history."""


class PolicyVersions:
    """The lineage in the store, and the active version.

    Several threads change what is deployed, so one lock guards all of it: who needs it takes it
    before a transaction of the store, never inside one.

    Args:
        store: holds the versions.
        clock: time.

    Attributes:
        lock: held while something that is deployed changes.
        active: the version that stands; None until it is known what stands, and nothing makes a
            version before.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.lock = threading.RLock()
        self.active: PolicyVersionRecord | None = None

    @property
    def weights(self) -> Mapping[str, str]:
        """The weights that are deployed: ``knob policy``, ``plan policy``, ``genome`` -> file."""
        return {} if self.active is None else self.active.weights

    def newest(self) -> PolicyVersionRecord | None:
        """The store's active version; None before the first."""
        return next((v for v in self._store.policy_versions(limit=1) if v.active), None)

    def go_on(self) -> PolicyVersionRecord | None:
        """Take the store's active version as what stands."""
        self.active = self.newest()
        return self.active

    def find(self, version_id: object) -> PolicyVersionRecord:
        """The version of that id.

        Raises:
            ConfigError: there is none.
        """
        # True would be 1, and None the id of what is not stored yet.
        is_id = isinstance(version_id, int) and not isinstance(version_id, bool)
        found = self._by_id().get(version_id) if is_id else None
        if found is None:
            raise ConfigError(
                f"there is no policy version {version_id!r:.40} to go to",
                remedy="the Decisions page and python run.py policy list show the versions",
            )
        return found

    def root(self) -> PolicyVersionRecord | None:
        """The version that the active one's lineage began with."""
        version, known = self.active, self._by_id()
        while version is not None and version.parent_id in known:
            version = known[version.parent_id]
        return version

    def knobs_since(self) -> PolicyVersionRecord | None:
        """The version that brought the active one's knobs; later ones changed other things."""
        version, known = self.active, self._by_id()
        while version is not None and (parent := known.get(version.parent_id)) is not None:
            if dict(parent.config) != dict(version.config):
                break
            version = parent
        return version

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make a change and its version one: what is stored inside is stored whole, or not at all.

        Raises:
            StoreError: the store failed; the former version is active.
        """
        with self.lock:
            former = self.active
            try:
                with self._store.transaction():
                    yield
            except BaseException:
                self.active = former
                raise

    def succeed(self, author: str, note: str, **changes: Any) -> PolicyVersionRecord:
        """Make the next version and activate it.

        Args:
            author: who changed what is deployed.
            note: what changed and why, for people.
            changes: fields of the version that are others than the active one's.

        Raises:
            StoreError: the store failed; the former version is active.
        """
        now = self._clock.now()
        with self.together():
            # From the store: another process may have made one.
            parent = self.newest()
            former = parent or PolicyVersionRecord(now, author, {})
            inherited: dict[str, Any] = {
                "id": None,
                "parent_id": parent.id if parent else None,
                "trial_id": None,
            }
            record = replace(
                former, created_at=now, author=author, note=note, active=True,
                **{**inherited, **changes},
            )  # fmt: skip
            version_id = self._store.add_policy_version(record)
            self._store.add_event(
                EventRecord(
                    at=now,
                    level="info",
                    kind="policy_version",
                    message=f"policy version {version_id} by {author}: {note}",
                )
            )
            self.active = replace(record, id=version_id)
            return self.active

    def deploy_weights(
        self, weights: Mapping[str, str], *, author: str, note: str
    ) -> PolicyVersionRecord:
        """Make the version with these weights; the present one where they are deployed already.

        What is recorded of the change belongs into the same transaction::

            with versions.together():
                store.add_policy_update(record)
                versions.deploy_weights({"knob policy": file}, author=..., note=...)

        Args:
            weights: of what was learnt anew -> file name in the folder of weights, where it lies
                already; "" for none any more. Other weights stay.
            author: who learnt them.
            note: why they are deployed, for people.

        Raises:
            ConfigError: nothing is deployed yet, or it is no plain file name.
            StoreError: the store failed; the former weights are deployed.
        """
        bad = [name for name in weights.values() if "/" in name or name.startswith(".")]
        if bad:
            raise ConfigError(f"{bad[0]!r:.80} is no name of a file of weights")
        with self.together():
            present = self.newest()
            if self.active is None or present is None:
                raise ConfigError("nothing is deployed yet, so nothing can be learnt on top of it")
            merged = {k: file for k, file in {**present.weights, **weights}.items() if file}
            if merged == dict(present.weights):
                return present
            return self.succeed(author, note, weights=merged)

    def _by_id(self) -> Mapping[object, PolicyVersionRecord]:
        return {v.id: v for v in self._store.policy_versions(limit=ALL_VERSIONS)}
