"""The live exploration of the demo shop's statements: a real server, role, book and store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from backend.catalog.hint_sets import HintSetCatalog, load_hint_sets
from backend.db_connector import DatabaseConnector
from backend.domain.clock import SystemClock
from backend.domain.plans import DEFAULT_HINT_SET, HintSet
from backend.domain.server import HostFacts
from backend.domain.steering import ClassKey, RunPurpose, StatementSample, SteeringState
from backend.settings.steering import SteeringSection
from backend.steering.client.planner_settings import SETTINGS
from backend.steering.client.statements import fingerprint
from backend.steering.register import SteeringRegister
from backend.steering.running.runner import StatementRunner
from backend.steering.search.exploration import LiveExploration
from backend.steering.statements.read_only import ReadOnlyCheck
from backend.steering.statements.sample_book import SampleBook
from backend.telemetry import open_store
from backend.workload.scope import Scope
from backend.workload.shape import StoreShape
from backend.workload.statements import STATEMENTS
from backend.workload.store import DemoStore
from tests.foreign_roles import own_database
from tests.foreign_server import AnyServer, explorer_dsn

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCALE = 0.02
DATABASE = "exploration_demo"
PATH = '"$user", public'
CLASSES = ("product_pairs", "bought_together", "week_by_category", "order_by_id")
HOST = HostFacts(memory_bytes=8 << 30, cpu_count=2.0)


class Shop:
    """The loaded shop, a book of its statements, and what explores them."""

    def __init__(self, server: AnyServer, folder: Path, stack: ExitStack) -> None:
        self.catalog: HintSetCatalog = load_hint_sets(server.version, HOST)
        self.url = explorer_dsn(server, DATABASE)
        self.runner = StatementRunner(self.url, self.catalog, search_path=PATH)
        stack.callback(self.runner.close)
        self.check = ReadOnlyCheck(stack.enter_context(closing(DatabaseConnector(self.url))))
        self.store = stack.enter_context(closing(open_store(f"sqlite:///{folder / 'store.db'}")))
        self.clock = SystemClock()
        self.book = SampleBook(folder / "samples.json")
        self.keys: dict[str, ClassKey] = {}
        scope = Scope(StoreShape.at_scale(SCALE))
        for name in CLASSES:
            statement = STATEMENTS[name]
            for number in range(4):
                point = ((number + 0.5) / 4, (number * 0.37 + 0.2) % 1, (number * 0.61 + 0.4) % 1)
                text = self.runner.fill_in(statement.sql, statement.parameters(point, scope))
                self.keys[name] = ClassKey(fingerprint(text), PATH)
                sample = StatementSample(self.keys[name], text, self.clock.now(), "file")
                self.book.add([sample])
        self.restart()

    def restart(self) -> None:
        self.register = SteeringRegister(self.store, self.clock)
        self.exploration = LiveExploration(
            SteeringSection(max_timeout_s=10.0),
            self.book,
            lambda search_path: self.runner,
            self.check,
            self.catalog,
            self.register,
            self.store,
            None,
            self.clock,
        )

    def work(self, until: Callable[[], bool]) -> None:
        while not until() and self.exploration.step():
            pass

    def verified(self) -> list[ClassKey]:
        records = self.register.classes()
        return [record.key for record in records if record.state is SteeringState.VERIFIED]


@pytest.fixture
def shop(server: AnyServer, tmp_path: Path) -> Iterator[Shop]:
    with own_database(server, DATABASE), ExitStack() as stack:
        DemoStore(server.dsn(DATABASE), scale=SCALE, seed=7).load()
        yield Shop(server, tmp_path, stack)


def test_a_better_plan_is_found_verified_and_known_after_a_restart(shop: Shop) -> None:
    shop.work(until=lambda: bool(shop.verified()))
    [key] = shop.verified()
    record = shop.register.get(key)
    assert record is not None
    evidence = record.evidence
    assert evidence is not None
    assert evidence.ci_high < 0.0
    assert evidence.steered_ms < evidence.default_ms
    assert evidence.default_plan != evidence.steered_plan
    assert evidence.under == shop.runner.in_force(evidence.settings)
    assert set(evidence.settings) <= set(SETTINGS)

    hint_set = HintSet(evidence.hint_set, evidence.settings)
    for sample in shop.book.samples(key):
        verdict = shop.check.check(sample.text)
        default, hinted = shop.runner.run(verdict, [DEFAULT_HINT_SET, hint_set], [10.0, 10.0])
        assert hinted.same_answer(default)

    runs = shop.store.plan_runs(fingerprint=key.fingerprint)
    verification = [run for run in runs if run.purpose is RunPurpose.VERIFICATION]
    assert len({run.statement for run in verification}) == evidence.statements
    before = len(shop.store.plan_runs())
    shop.restart()
    assert shop.verified() == [key]
    shop.work(until=lambda: len(shop.store.plan_runs()) > before)
    later = shop.store.plan_runs()[before:]
    assert later
    assert key not in {run.key for run in later}
