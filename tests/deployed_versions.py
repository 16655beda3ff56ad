"""A tuner's deployment on a server in memory, with a real store: knobs, hint sets, weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from backend.deployment import Deployment
from backend.domain.policies import PolicyVersionRecord
from backend.domain.steering import ClassKey, DatabaseIdentity, ServedHint
from backend.parameter_adjuster import ParameterAdjuster
from backend.policy_versions import PolicyVersions
from backend.steering.register import SteeringRegister
from backend.telemetry import SqlStore, open_store
from tests.fake_server import CATALOG, FakeClock, FakeServer, Steps
from tests.steered_classes import KEY, evidence

HOME = DatabaseIdentity("7001", "shop")
IN_FORCE = {"enable_nestloop": "on"}
"""As ``tests.steered_classes.evidence`` was made under."""
TEXT = "SELECT count(*) FROM orders WHERE id = $1"


class Deployed:
    """What the tuner builds of it, on a store in a folder.

    Attributes:
        in_force: the planner settings that the server tells; None: it does not.
        lost: weights whose files are gone.
    """

    def __init__(self, folder: Path, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer(Steps())
        self.store: SqlStore = open_store(f"sqlite:///{folder}/telemetry.db")
        self.clock = FakeClock()
        self.in_force: Mapping[str, str] | None = IN_FORCE
        self.lost: set[str] = set()
        self.start()

    def start(self, home: DatabaseIdentity = HOME) -> None:
        """As a tuner starts: undo what was left open, take what stands as deployed."""
        self.epoch = self.store.acquire_lease("a test", 3600.0)
        self.adjuster = ParameterAdjuster(
            self.server, self.store, CATALOG, self.clock, sleep=self.clock.sleep
        )
        self.adjuster.reconcile(self.epoch)
        self.versions = PolicyVersions(self.store, self.clock)
        self.register = SteeringRegister(self.store, self.clock, home, self.versions)
        self.register.withdraw_proven_elsewhere()
        self.deployment = Deployment(
            self.server,
            self.adjuster,
            self.store,
            CATALOG,
            versions=self.versions,
            register=self.register,
            in_force=self._in_force,
            has_weights=lambda name: name not in self.lost,
            epoch=lambda: self.epoch,
            allow_restart=False,
        )
        self.deployment.adopt()

    def _in_force(self, names: Collection[str]) -> Mapping[str, str] | None:
        if self.in_force is None:
            return None
        return {name: self.in_force[name] for name in names if name in self.in_force}

    @property
    def active(self) -> PolicyVersionRecord:
        """The store's active version; what the tuner holds for it is the same."""
        (active,) = [v for v in self.store.policy_versions() if v.active]
        assert self.versions.active == active
        return active

    def knobs(self, **values: int) -> PolicyVersionRecord:
        """Deploy knobs by hand."""
        version, _ = self.deployment.deploy(values, author="tester", index=1.0, note="by hand")
        return version

    def prove(self, key: ClassKey = KEY, hint_set: str = "no_nestloop") -> PolicyVersionRecord:
        """Have a hint set proven faster."""
        self.register.add(key, TEXT)
        self.register.verify(key, evidence(hint_set=hint_set))
        return self.active

    def go_to(self, version: PolicyVersionRecord):
        """As an operator does it."""
        return self.deployment.go_to(version, author="tester", note=f"to {version.id}")

    def consistent(self) -> bool:
        """Whether the active version says what stands on the server and in the register."""
        active = self.active
        return dict(active.config) == {
            name: self.server.value_of_entry(name) for name in self.server.entries
        } and identities(active.steering) == identities(self.register.hints())

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def identities(hints: Collection[ServedHint]) -> list[tuple[object, ...]]:
    """What tells hint sets apart."""
    return [hint.identity for hint in hints]
