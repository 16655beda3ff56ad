"""What is deployed on the server, and the only ways to change it.

Joins the parameter adjuster (one path for agent and human) with the policy versions: a deployment
is a kept batch of knob changes *and* a version in the store, both or neither. Going to an earlier
version brings its hint sets and weights back as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from backend.catalog.knobs import KnobCatalog
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.modes import ChangeState, Mode
from backend.domain.policies import PolicyVersionRecord
from backend.domain.server import KnobReading
from backend.errors import (
    AdjustmentError,
    AutopilotError,
    ConfigError,
    ConflictError,
    FrozenError,
)
from backend.parameter_adjuster import AppliedBatch, ParameterAdjuster, ReconcileResult
from backend.policy_versions import ALL_VERSIONS, AUTOPILOT, STEERING, PolicyVersions
from backend.protocols import Store, TargetDatabase
from backend.steering.register import SteeringRegister
from backend.steering.restoring import Restoring

__all__ = ["ALL_VERSIONS", "AUTOPILOT", "Arrival", "Deployment"]

log = logging.getLogger(__name__)

_ALL_CHANGES = 100_000

InForce = Callable[[Collection[str]], "Mapping[str, str] | None"]
"""Names of planner settings → values in force, as ``SHOW`` prints them; None: nobody can tell."""


@dataclass(frozen=True)
class Arrival:
    """What came of going to a version.

    Args:
        version: the new one, which is deployed now.
        steering: what became of the hint sets.
        lost: the weights whose files are gone; the former ones stay.
    """

    version: PolicyVersionRecord
    steering: Restoring
    lost: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """For people."""
        parts = [f"now policy version {self.version.id}", *self.steering.told]
        if self.lost:
            parts.append(f"the weights of the {' and the '.join(self.lost)} are gone: others stay")
        return "; ".join(parts)


class Deployment:
    """The present knob configuration with its lineage.

    Args:
        target: the server, for reading.
        adjuster: the journalled writer.
        store: the journal of changes.
        catalog: the writable knobs.
        versions: of what is deployed.
        register: what is served.
        in_force: tells planner settings.
        has_weights: whether a file of weights is there.
        epoch: the epoch under which we may act.
        allow_restart: whether the server may be restarted for restart knobs.
    """

    def __init__(
        self,
        target: TargetDatabase,
        adjuster: ParameterAdjuster,
        store: Store,
        catalog: KnobCatalog,
        *,
        versions: PolicyVersions,
        register: SteeringRegister,
        in_force: InForce,
        has_weights: Callable[[str], bool],
        epoch: Callable[[], int],
        allow_restart: bool,
    ) -> None:
        self._target, self._adjuster, self._store = target, adjuster, store
        self._catalog, self.versions, self._register = catalog, versions, register
        self._in_force, self._has_weights = in_force, has_weights
        self._epoch, self.allow_restart = epoch, allow_restart
        self.mode = Mode.OBSERVE
        self.frozen = False
        self.readings: Mapping[str, KnobReading] = {}
        self.present = KnobConfig({})

    @property
    def version(self) -> PolicyVersionRecord | None:
        """The version that is deployed; None before :meth:`adopt`."""
        return self.versions.active

    @property
    def is_first_version(self) -> bool:
        """Whether nothing was deployed yet since the store was made."""
        return self.version is not None and self.version.parent_id is None

    def refresh(self) -> None:
        """Read the catalogued knobs from the server."""
        self.readings = self._target.read_knobs(self._catalog.names)
        self.present = KnobConfig({name: r.value for name, r in self.readings.items()})

    def adopt(self) -> PolicyVersionRecord:
        """Take what stands as the deployed version, on start.

        A version of ours that still stands is continued. Other knobs become a new version with
        the server's owner as author, since someone changed them while we were away; so do other
        hint sets, which were found, or withdrawn, without a tuner.
        """
        self.refresh()
        versions, served = self.versions, self._register.hints()
        active = versions.go_on()
        if active is None or not self._stands(active):
            note = "found on the server at the start" if active is None else "changed while away"
            # Nothing was measured across the change, so a new chain begins at 1.
            return versions.succeed(
                "server", note, config=self.deviating, steering=served, index=1.0
            )
        if [hint.identity for hint in served] != [hint.identity for hint in active.steering]:
            return versions.succeed(STEERING, "hint sets changed while away", steering=served)
        return active

    def notice(self) -> bool:
        """Make a version of what somebody else has changed meanwhile; whether there is any.

        Asked between two trials. What is read anyway tells it, so it costs nothing where nothing
        has changed.
        """
        active = self.version
        if active is None or self._stands(active) or self._store.open_changes():
            return False
        self.refresh()  # what was read last may have been read under an arm
        if self._stands(active):
            return False
        self.versions.succeed("server", "changed by somebody else", config=self.deviating)
        return True

    def _changed_by_others(self, names: Collection[str]) -> list[str]:
        """Those of the knobs whose entry is not the deployed version's any more."""
        self.refresh()
        if self.version is None:
            return []
        differing = self._differing(self.version)
        return [name for name in names if name in differing]

    def _stands(self, version: PolicyVersionRecord) -> bool:
        return not self._differing(version)

    def _differing(self, version: PolicyVersionRecord) -> set[str]:
        """The knobs whose entry is not a version's.

        Where a role or a database has a setting of its own the server shows that value: then only
        whether there is an entry is compared.
        """
        now, config = self.deviating, version.config
        hidden = {name for name, reading in self.readings.items() if reading.override is not None}
        return {
            name
            for name in {*now, *config}
            if (name in now) != (name in config)
            or (name not in hidden and now.get(name) != config.get(name))
        }

    def default_of(self, name: str) -> KnobValue | None:
        """The server's own default of a catalogued knob."""
        return self._catalog.knob(name).knob.default

    @property
    def deviating(self) -> dict[str, KnobValue]:
        """The knobs that ALTER SYSTEM set, with their values: what a policy version holds."""
        return {name: r.value for name, r in self.readings.items() if r.entry is not None}

    # -- the two arms of a trial (trials.ArmSwitch) -------------------------------------------

    def enter(self, values: Mapping[str, KnobValue | None], trial_id: int | None) -> str:
        """Put the other arm on the server; "" where the arms are the same (an A/A trial).

        Raises:
            FrozenError: the freeze switch is on.
            ConflictError: somebody else has changed one of the knobs since the trial was planned.
            AdjustmentError: it did not take effect; what stood before stands again.
        """
        if not values:
            return ""
        self.may_act()
        if others := self._changed_by_others(values):
            raise ConflictError(f"{', '.join(others)}: changed by somebody else meanwhile")
        batch = self._adjuster.apply(
            values,
            actor=AUTOPILOT,
            trial_id=trial_id,
            epoch=self._epoch(),
            allow_restart=self.allow_restart,
        )
        return batch.batch_id

    def leave(self, batch_id: str, reason: str) -> None:
        """Take the other arm off again. Never refused: rolling back needs nobody's leave.

        Raises:
            ConflictError: somebody else changed a knob of it meanwhile, which is left alone.
            AdjustmentError: it could not be taken off yet.
        """
        if batch_id:
            result = self._adjuster.roll_back(batch_id, epoch=self._epoch(), reason=reason)
            if result.conflicts:
                self.refresh()
                names = ", ".join(row.knob for row in result.conflicts)
                raise ConflictError(f"{names}: changed by somebody else meanwhile, and left alone")

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
        version = self.versions.succeed(
            author, "a change was undone", config=self.deviating, index=index
        )
        if result.conflicts:
            names = ", ".join(row.knob for row in result.conflicts)
            raise ConflictError(f"{names}: changed by somebody else since, and left alone")
        return version

    def return_to(
        self, version: PolicyVersionRecord, *, author: str, reason: str
    ) -> PolicyVersionRecord:
        """Bring back an earlier version's knobs alone; needs nobody's leave.

        For what was proven, or failed, by its knobs: hint sets and weights found since stand. So
        does what somebody else has set since the present version was deployed.
        """
        theirs = self._changed_by_others(self.readings)
        entries = {
            name: version.config.get(name)
            for name in self.changed_since(version.config)
            if name not in theirs
        }
        batch = self._adjuster.apply(
            entries, actor=author, epoch=self._epoch(), allow_restart=self.allow_restart
        )
        return self._keep(batch, author, version.index, reason, None)

    def go_to(self, version: PolicyVersionRecord, *, author: str, note: str) -> Arrival:
        """Deploy a version again, wholly: knobs, hint sets, weights; needs nobody's leave.

        A hint set whose proof does not count any more is not served; see ``steering.restoring``.

        Raises:
            ConfigError: it is the active one, and stands.
            AdjustmentError: the knobs did not take effect; what stood before stands.
            ConflictError: somebody else changes them at this moment; likewise.
        """
        self.refresh()
        active = self.version
        if active is not None and version.id == active.id and self._stands(version):
            raise ConfigError(
                f"policy version {version.id} is what is deployed",
                remedy="name another one; python run.py policy list shows them",
            )
        batch = self._adjuster.apply(
            {name: version.config.get(name) for name in self.changed_since(version.config)},
            actor=author,
            epoch=self._epoch(),
            allow_restart=self.allow_restart,
        )
        try:
            self.refresh()
            rows = self._adjuster.keepable(batch.batch_id) if batch.changes else ()
            in_force = self._settings_under(version)
            with self.versions.lock:
                change = self._register.restoring(version, in_force)
                lost = [n for n, file in version.weights.items() if not self._has_weights(file)]
                kept = {name: self.versions.weights.get(name, "") for name in lost}
                with self.versions.together():
                    if rows:
                        self._adjuster.mark_kept(rows)
                    self._store.save_steered_classes(change.records)
                    arrived = self.versions.succeed(
                        author,
                        note,
                        config=self.deviating,
                        steering=change.served,
                        weights={n: f for n, f in {**version.weights, **kept}.items() if f},
                        index=version.index,
                    )
                self._register.restored(change)
        except Exception:
            self._take_back(batch)
            raise
        return Arrival(arrived, change, tuple(lost))

    def _settings_under(self, version: PolicyVersionRecord) -> Mapping[str, str] | None:
        """The planner settings in force that matter to a version's proofs."""
        names = {
            name
            for hint in version.steering
            for name in (*hint.evidence.under, *hint.evidence.settings_in_force)
        }
        return self._in_force(sorted(names)) if names else {}

    def version_to_return_to(self, version_id: object) -> PolicyVersionRecord:
        """The policy version of that id; None: the one before the present.

        Raises:
            ConfigError: there is none.
        """
        if version_id is None and self.version is not None:
            version_id = self.version.parent_id
        return self.versions.find(version_id)

    def values_under(self, version: PolicyVersionRecord) -> dict[str, KnobValue]:
        """The values of the knobs that going to a version changes."""
        values = {
            name: version.config.get(name, self.default_of(name))
            for name in self.changed_since(version.config)
        }
        return {name: value for name, value in values.items() if value is not None}

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
        root = self.versions.root()
        return root.config if root is not None else {}

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
            # A new lineage: comparisons go back to here, not further.
            self._keep(batch, author, 1.0, "all entries removed", None, begins=True)

    def _keep(
        self,
        batch: AppliedBatch,
        author: str,
        index: float,
        note: str,
        trial_id: int | None,
        *,
        begins: bool = False,
    ) -> PolicyVersionRecord:
        """Make an applied batch the deployed state: changes and version, both or neither.

        ``begins``: a lineage, so that the version has no parent.
        """
        root: dict[str, None] = {"parent_id": None} if begins else {}
        try:
            self.refresh()
            rows = self._adjuster.keepable(batch.batch_id) if batch.changes else ()
            with self.versions.together():
                if rows:
                    self._adjuster.mark_kept(rows)
                return self.versions.succeed(
                    author, note, config=self.deviating, index=index, trial_id=trial_id, **root
                )
        except Exception:
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

    def may_act(self) -> None:
        """Raise FrozenError while the freeze switch is on."""
        if self.frozen:
            raise FrozenError(
                "the freeze switch is on", remedy="unfreeze on the Safety page, then try again"
            )
