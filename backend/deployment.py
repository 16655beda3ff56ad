"""What is deployed on the server, and the only ways to change it.

Joins the parameter adjuster (one path for agent and human) with the policy versions: a deployment
is a kept batch of knob changes *and* a version in the store, both or neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from backend.catalog.knobs import KnobCatalog
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.modes import ChangeState, Mode
from backend.domain.records import EventRecord, PolicyVersionRecord
from backend.domain.server import KnobReading
from backend.errors import (
    AdjustmentError,
    AutopilotError,
    ConfigError,
    ConflictError,
    FrozenError,
)
from backend.parameter_adjuster import AppliedBatch, ParameterAdjuster, ReconcileResult
from backend.protocols import Clock, Store, TargetDatabase

log = logging.getLogger(__name__)

AUTOPILOT = "autopilot"
ALL_VERSIONS = 5000
"""So many of the newest policy versions are looked through; older ones are history."""
_ALL_CHANGES = 100_000


class Deployment:
    """The present knob configuration with its lineage.

    Args:
        target: the server, for reading.
        adjuster: the journalled writer.
        store: policy versions and events.
        catalog: the writable knobs.
        clock: time.
        epoch: the epoch under which we may act.
        allow_restart: whether the server may be restarted for restart knobs.
    """

    def __init__(
        self,
        target: TargetDatabase,
        adjuster: ParameterAdjuster,
        store: Store,
        catalog: KnobCatalog,
        clock: Clock,
        *,
        epoch: Callable[[], int],
        allow_restart: bool,
    ) -> None:
        self._target, self._adjuster, self._store = target, adjuster, store
        self._catalog, self._clock = catalog, clock
        self._epoch, self.allow_restart = epoch, allow_restart
        self.mode = Mode.OBSERVE
        self.frozen = False
        self.readings: Mapping[str, KnobReading] = {}
        self.present = KnobConfig({})
        self.version: PolicyVersionRecord | None = None

    @property
    def is_first_version(self) -> bool:
        """Whether nothing was deployed yet since the store was made."""
        return self.version is not None and self.version.parent_id is None

    def refresh(self) -> None:
        """Read the catalogued knobs from the server."""
        self.readings = self._target.read_knobs(self._catalog.names)
        self.present = KnobConfig({name: r.value for name, r in self.readings.items()})

    def adopt(self) -> PolicyVersionRecord:
        """Take what stands on the server as the deployed version, on start.

        A version of ours that still stands is continued; anything else becomes a new version
        with the server's owner as author, since someone changed it while we were away.
        """
        self.refresh()
        active = next((v for v in self._store.policy_versions() if v.active), None)
        if active is not None and self._stands(active):
            self.version = active
            return active
        note = "found on the server at the start" if active is None else "changed while away"
        # Nothing was measured across the change, so a new chain begins at 1.
        return self._add_version("server", 1.0, note, trial_id=None, parent=active)

    def _stands(self, version: PolicyVersionRecord) -> bool:
        return self.deviating == dict(version.config)

    def default_of(self, name: str) -> KnobValue | None:
        """The server's own default of a catalogued knob."""
        return self._catalog.knob(name).knob.default

    @property
    def deviating(self) -> dict[str, KnobValue]:
        """The knobs that ALTER SYSTEM set, with their values: what a policy version holds."""
        return {name: r.value for name, r in self.readings.items() if r.entry is not None}

    # -- the two arms of a trial (trials.ArmSwitch) -------------------------------------------

    def enter(self, values: Mapping[str, KnobValue | None], trial_id: int | None) -> str:
        """Put the other arm on the server; "" where the arms are the same (an A/A trial)."""
        if not values:
            return ""
        self.may_act()
        batch = self._adjuster.apply(
            values,
            actor=AUTOPILOT,
            trial_id=trial_id,
            epoch=self._epoch(),
            allow_restart=self.allow_restart,
        )
        return batch.batch_id

    def leave(self, batch_id: str, reason: str) -> None:
        """Take the other arm off again. Never refused: rolling back needs nobody's leave."""
        if batch_id:
            self._adjuster.roll_back(batch_id, epoch=self._epoch(), reason=reason)

    # -- deployments --------------------------------------------------------------------------

    def deploy(
        self,
        values: Mapping[str, KnobValue],
        *,
        author: str,
        index: float,
        note: str,
        trial_id: int | None = None,
    ) -> tuple[PolicyVersionRecord, str]:
        """Apply for good; returns the new version and the id of the batch of changes.

        Raises:
            FrozenError: the freeze switch is on.
            AdjustmentError: it did not take effect; what stood before stands again.
        """
        self.may_act()
        batch = self._adjuster.apply(
            values,
            actor=author,
            trial_id=trial_id,
            epoch=self._epoch(),
            allow_restart=self.allow_restart,
        )
        return self._keep(batch, author, index, note, trial_id), batch.batch_id

    def undo_batch(self, batch_id: str, *, author: str, index: float) -> PolicyVersionRecord:
        """Undo a kept batch: what stood before it stands again.

        Raises:
            AdjustmentError: there is no such batch, or it never took effect.
            ConflictError: somebody else changed a knob since; that knob is left alone.
        """
        rows = [row for row in self._store.changes(limit=_ALL_CHANGES) if row.batch_id == batch_id]
        kept = [row for row in rows if row.state is ChangeState.KEPT]
        if rows and self.version and all(row.state is ChangeState.ROLLED_BACK for row in rows):
            return self.version  # it was a trial's, and went with it
        if not kept:
            raise AdjustmentError(
                f"batch {batch_id!r:.40} holds no change that is in force",
                remedy="it was undone already, or never kept; see the history",
            )
        result = self._adjuster.roll_back(
            kept,
            epoch=self._epoch(),
            reason=f"undone by {author}",
            actor=author,
            allow_restart=self.allow_restart,
        )
        self.refresh()
        version = self._add_version(author, index, "a change was undone", None, self.version)
        if result.conflicts:
            names = ", ".join(row.knob for row in result.conflicts)
            raise ConflictError(f"{names}: changed by somebody else since, and left alone")
        return version

    def return_to(
        self, version: PolicyVersionRecord, *, author: str, reason: str
    ) -> PolicyVersionRecord:
        """Bring back an earlier version's configuration; needs nobody's leave."""
        entries = {name: version.config.get(name) for name in self.changed_since(version.config)}
        batch = self._adjuster.apply(
            entries, actor=author, epoch=self._epoch(), allow_restart=self.allow_restart
        )
        return self._keep(batch, author, version.index, reason, None)

    def version_to_return_to(self, version_id: int | None) -> PolicyVersionRecord:
        """The policy version of that id; None: the one before the present.

        Raises:
            ConfigError: there is none.
        """
        if version_id is None and self.version is not None:
            version_id = self.version.parent_id
        versions = self._store.policy_versions(limit=ALL_VERSIONS)
        found = next((v for v in versions if v.id is not None and v.id == version_id), None)
        if found is None:
            raise ConfigError(
                f"there is no policy version {version_id!r:.40} to go back to",
                remedy="the Decisions page and run.py report list the versions",
            )
        return found

    def undo_left_open(self) -> ReconcileResult | None:
        """Undo what the journal still holds open; None where there is nothing.

        Between two trials nothing is open, unless taking it off failed.

        Raises:
            StaleEpochError: we may not act any more.
            ServerConnectionError: the server is gone; it stays open.
        """
        if not self._store.open_changes():
            return None
        result = self._adjuster.reconcile(self._epoch())
        self.refresh()
        return result

    def root_entries(self) -> Mapping[str, KnobValue]:
        """The entries that stood when this lineage began."""
        versions = {v.id: v for v in self._store.policy_versions(limit=ALL_VERSIONS)}
        version = self.version
        while version is not None and version.parent_id in versions:
            version = versions[version.parent_id]
        return version.config if version is not None else {}

    def changed_since(self, former: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        """The knobs whose entry differs from ``former``'s, with their present values."""
        now = self.deviating
        return {
            name: self.present[name] for name in self.present if now.get(name) != former.get(name)
        }

    def reset(self, author: str) -> None:
        """Remove every entry of a catalogued knob: the server's own configuration again."""
        entries = {name: None for name, r in self.readings.items() if r.entry is not None}
        if entries:
            batch = self._adjuster.apply(
                entries, actor=author, epoch=self._epoch(), allow_restart=True
            )
            self.version = None  # a new lineage: comparisons go back to here, not further
            self._keep(batch, author, 1.0, "all entries removed", None)

    def _keep(
        self,
        batch: AppliedBatch,
        author: str,
        index: float,
        note: str,
        trial_id: int | None,
    ) -> PolicyVersionRecord:
        """Make an applied batch the deployed state: changes and version, both or neither."""
        parent = self.version
        try:
            self.refresh()
            rows = self._adjuster.keepable(batch.batch_id) if batch.changes else ()
            with self._store.transaction():
                if rows:
                    self._adjuster.mark_kept(rows)
                return self._add_version(author, index, note, trial_id, parent)
        except Exception:
            self.version = parent
            self._take_back(batch)
            raise

    def _take_back(self, batch: AppliedBatch) -> None:
        """Undo what could not be kept; where that fails too, the journal holds it open."""
        try:
            self._adjuster.roll_back(
                batch.batch_id, epoch=self._epoch(), reason="it could not be kept"
            )
            self.refresh()
        except AutopilotError as error:
            log.error("batch %s is neither kept nor undone: %s", batch.batch_id, error.message)

    def _add_version(
        self,
        author: str,
        index: float,
        note: str,
        trial_id: int | None,
        parent: PolicyVersionRecord | None,
    ) -> PolicyVersionRecord:
        record = PolicyVersionRecord(
            created_at=self._clock.now(),
            author=author,
            config=self.deviating,
            parent_id=parent.id if parent else None,
            trial_id=trial_id,
            index=index,
            note=note,
        )
        version_id = self._store.add_policy_version(record)
        self._store.add_event(
            EventRecord(
                at=self._clock.now(),
                level="info",
                kind="policy_version",
                message=f"policy version {version_id} by {author}: {note}",
            )
        )
        self.version = replace(record, id=version_id)
        return self.version

    def may_act(self) -> None:
        """Raise FrozenError while the freeze switch is on."""
        if self.frozen:
            raise FrozenError(
                "the freeze switch is on", remedy="unfreeze on the Safety page, then try again"
            )
