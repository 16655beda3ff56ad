"""A steering service with all that it works on, for the tests of what it does."""

from __future__ import annotations

from backend.domain.clock import ManualClock
from backend.domain.modes import Mode
from backend.domain.steering import ClassKey
from backend.steering.client import SpoolWriter, parse_table
from backend.steering.places import SteeringPlaces
from backend.steering.register import SteeringRegister
from backend.steering.serving.service import RECORD_EVERY_S, SteeringService
from tests.steered_classes import KEY, START, MemoryStore, evidence

TEXT = "SELECT count(*) FROM orders JOIN items USING (order_id) WHERE customer_id = $1"


class SettableClock(ManualClock):
    def set_wall_clock(self, now):
        """Time that is measured goes on."""
        self._start += now - self.now()


class Product:
    """A service with all that it works on."""

    def __init__(self, folder):
        self.places = SteeringPlaces(folder / "data" / "steering")
        self.store, self.clock = MemoryStore(), SettableClock(START)
        self.register = SteeringRegister(self.store, self.clock)
        self.mode, self.frozen = Mode.AUTO, False
        self.service = self.start()
        self.report_to_spool = SpoolWriter(self.places.timings)

    def start(self):
        return SteeringService(
            self.register,
            self.places,
            self.store,
            self.clock,
            mode=lambda: self.mode,
            frozen=lambda: self.frozen,
        )

    def verify(self, key=KEY, **others):
        self.register.add(key, TEXT)
        others.setdefault("verified_at", self.clock.now())
        return self.register.verify(key, evidence(**others))

    def tick(self, seconds=5.0):
        self.clock.advance(seconds)
        self.service.tick()

    def table(self):
        return parse_table(self.places.table.read_bytes())

    def steered(self):
        """What plug-ins do by now."""
        if not self.places.table.exists():
            return {}
        table = self.table()
        if table.expires_at_s <= self.clock.now().timestamp():
            return {}
        return {ClassKey(e.fingerprint, e.search_path): e for e in table.entries}

    def report(self, *classes):
        self.places.folder.mkdir(parents=True, exist_ok=True)
        self.report_to_spool(list(classes))

    def hear(self):
        """Until all that lies in the spool is stored: it is read one tick after it is taken."""
        self.tick()
        self.tick()
        self.tick(RECORD_EVERY_S)
