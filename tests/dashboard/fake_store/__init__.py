"""An in-memory store with a synthetic, realistic run, for the page tests."""

from tests.dashboard.fake_steering import HOSTILE
from tests.dashboard.fake_store.knobs import knob_statuses
from tests.dashboard.fake_store.store import FakeStore

__all__ = ["HOSTILE", "FakeStore", "knob_statuses"]
