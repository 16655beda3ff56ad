"""What query steering consists of, and how it is put together for a server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from backend.catalog.hint_sets import HintSetCatalog, load_hint_sets
from backend.config import Settings
from backend.db_connector import DatabaseConnector
from backend.domain.server import ServerInfo
from backend.domain.steering import DatabaseIdentity
from backend.errors import AutopilotError
from backend.evolution.genome import Genome
from backend.evolution.present import default_genome
from backend.plan_learning import PlanLearner
from backend.policy.plan_policy import PlanPolicy, PolicyGuesser
from backend.protocols import Clock, Store
from backend.servers import embedded_server
from backend.settings.address import parse_url
from backend.steering.places import SteeringPlaces
from backend.steering.register import SteeringRegister
from backend.steering.running.runner import StatementRunner
from backend.steering.running.trial_session import EXPLORER_APPLICATION
from backend.steering.search.exploration import LiveExploration
from backend.steering.statements.read_only import ReadOnlyCheck
from backend.steering.statements.sample_book import SampleBook

log = logging.getLogger(__name__)

_SEARCH_PATH = '"$user", public'


@dataclass
class Explorer:
    """The search for better plans on one server, with what it holds open."""

    exploration: LiveExploration
    book: SampleBook
    learner: PlanLearner
    url: URL
    _runners: Runners
    _closing: ExitStack

    def cancel(self) -> None:
        """End the statement that runs now, if any; safe from any thread."""
        self._runners.cancel()

    def close(self) -> None:
        """End its sessions. Idempotent."""
        self._closing.close()


def explores(settings: Settings) -> bool:
    """Whether statements may be tried: where nobody said so, on the embedded server only."""
    explore = settings.steering.explore
    return settings.is_embedded if explore is None else explore


def home_of(settings: Settings, info: ServerInfo) -> DatabaseIdentity:
    """The database whose statements are steered; ``steering.dsn`` stands in for it."""
    return DatabaseIdentity(info.server_id, settings.database.dbname)


def explorer_url(settings: Settings) -> URL:
    """Where statements are tried, and as whom.

    Raises:
        ConfigError: ``steering.dsn`` cannot be parsed.
    """
    if settings.steering.dsn is not None:
        return parse_url(settings.steering.dsn.get_secret_value(), "steering.dsn")
    if settings.is_embedded:
        return embedded_server(settings).explorer_dsn()
    return settings.foreign_url()


def planner_settings(
    settings: Settings, info: ServerInfo
) -> Callable[[Collection[str]], Mapping[str, str] | None]:
    """What tells planner settings in force, as sessions that try statements see them.

    It is asked with names and answers name → value as ``SHOW`` prints it; None where the server
    does not tell.
    """

    def in_force(names: Collection[str]) -> Mapping[str, str] | None:
        catalog = load_hint_sets(info.version, info.host)
        try:
            runner = StatementRunner(explorer_url(settings), catalog, search_path=_SEARCH_PATH)
            with closing(runner):
                return runner.in_force(names)
        except AutopilotError as error:
            log.warning("the planner settings in force cannot be read: %s", error.message)
            return None

    return in_force


def build_explorer(
    settings: Settings,
    info: ServerInfo,
    store: Store,
    register: SteeringRegister,
    clock: Clock,
    plan_policy: Callable[[], PlanPolicy | None] = lambda: None,
    genome: Genome | None = None,
) -> Explorer:
    """Wire the explorer; it connects when its first statement is tried.

    ``plan_policy`` is the one that Level 1 has deployed, if any, ``genome`` Level 2's; without one
    the settings' own is used.

    Raises:
        ConfigError: ``steering.dsn`` cannot be parsed.
    """
    url, closing = explorer_url(settings), ExitStack()
    catalog = load_hint_sets(info.version, info.host)
    connector = DatabaseConnector(
        url,
        application_name=EXPLORER_APPLICATION,
        connect_timeout_s=settings.database.connection_timeout,
    )
    closing.callback(connector.close)
    book = SampleBook(SteeringPlaces(Path(settings.paths.steering_dir)).kept_samples)
    chosen = genome or default_genome(settings)
    learner = PlanLearner(settings, catalog, store, clock, chosen.plan_settings)
    runners = Runners(url, catalog)
    closing.callback(runners.close)
    exploration = LiveExploration(
        settings.steering,
        book,
        runners.under,
        ReadOnlyCheck(connector),
        catalog,
        register,
        store,
        PolicyGuesser(learner, plan_policy),
        clock,
        seed=settings.workload.seed,
    )
    return Explorer(exploration, book, learner, url, runners, closing)


class Runners:
    """One runner a search path; the one used longest ago is closed when there are too many.

    Args:
        url: where statements run.
        catalog: the hint sets of that server.
    """

    MOST = 4

    def __init__(self, url: URL, catalog: HintSetCatalog) -> None:
        self._url, self._catalog = url, catalog
        self._open: dict[str, StatementRunner] = {}

    def under(self, search_path: str) -> StatementRunner:
        """The runner for statements under a search path, until another is asked for."""
        runner = self._open.pop(search_path, None)
        if runner is None:
            while len(self._open) >= self.MOST:
                self._open.pop(next(iter(self._open))).close()
            runner = StatementRunner(self._url, self._catalog, search_path=search_path)
        self._open[search_path] = runner
        return runner

    def cancel(self) -> None:
        """End the statements that run now; safe from any thread."""
        for runner in list(self._open.values()):
            runner.cancel()

    def close(self) -> None:
        """End all sessions. Idempotent."""
        for runner in self._open.values():
            runner.close()
        self._open.clear()
