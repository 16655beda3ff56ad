"""The server behind ``run.py steering``: runs and explains the statements kept of classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from backend.catalog.hint_sets import load_hint_sets
from backend.config import Settings
from backend.db_connector import DatabaseConnector, quoted_identifier
from backend.domain.plans import DEFAULT_HINT_SET, HintSet
from backend.domain.steering import ClassKey, SteeredClassRecord
from backend.errors import ServerConnectionError, ServerError, SteeringError
from backend.servers import embedded_server, postgres_target
from backend.steering.export.misestimate_report import ClassFindings
from backend.steering.export.misestimates import misestimates
from backend.steering.export.role_settings import PlanPairs
from backend.steering.places import SteeringPlaces
from backend.steering.running.trial_session import EXPLORER_APPLICATION
from backend.steering.statements.read_only import ReadOnlyCheck, ReadOnlyVerdict
from backend.steering.statements.sample_book import SampleBook
from backend.steering_parts import Runners, explorer_url

_PLANNING_TIMEOUT_S = 5.0
_STATISTICS = """
SELECT n.nspname AS schema, s.stxname AS name
FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
"""


class KeptStatements:
    """The statements that the autopilot keeps of each class, on the server where it tries them.

    Args:
        settings: which server, which files, which time-out.

    Raises:
        SteeringError: the embedded server does not run.
        ServerConnectionError: the server cannot be reached.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.is_embedded and not embedded_server(settings).is_running():
            raise SteeringError(
                "the embedded server does not run, and statements are looked at there",
                remedy="start python run.py first, or give the right --data-dir",
            )
        self._timeout_s = settings.steering.max_timeout_s
        self._book = SampleBook(SteeringPlaces(settings.paths.steering_dir).kept_samples)
        url = explorer_url(settings)
        self._closing = ExitStack()
        target = postgres_target(settings, application_name=EXPLORER_APPLICATION)
        try:
            info = target.describe()
        finally:
            target.close()
        catalog = load_hint_sets(info.version, info.host)
        connector = DatabaseConnector(
            url,
            application_name=EXPLORER_APPLICATION,
            connect_timeout_s=settings.database.connection_timeout,
        )
        self._closing.callback(connector.close)
        self._connector = connector
        self._check = ReadOnlyCheck(connector)
        self._runners = Runners(url, catalog)
        self._closing.callback(self._runners.close)

    def close(self) -> None:
        """End all sessions. Idempotent."""
        self._closing.close()

    def findings(self, record: SteeredClassRecord) -> ClassFindings:
        """Run the default plan of a class's newest statement and see where it was misjudged.

        Raises:
            ServerConnectionError: the server was lost.
        """
        for verdict in self._verdicts(record.key):
            if not verdict.is_read_only:
                return ClassFindings(record, hindrance=verdict.refusal)
            runner = self._runners.under(record.key.search_path)
            try:
                plan = runner.analyze(verdict, DEFAULT_HINT_SET, timeout_s=self._timeout_s)
                found = misestimates(plan) if plan is not None else ()
            except ServerConnectionError:
                raise
            except ServerError:  # its words may repeat constants of the statement
                return ClassFindings(record, hindrance="the server refused the statement")
            late = "" if plan is not None else f"it did not end within {self._timeout_s:g} s"
            return ClassFindings(record, found, late)
        return ClassFindings(record, hindrance="no statement of the class is kept")

    def existing_statistics(self) -> frozenset[str]:
        """The names of the database's extended statistics, qualified and quoted.

        Raises:
            ServerConnectionError: the server was lost.
        """
        rows = self._connector.fetch(_STATISTICS)
        return frozenset(
            f"{quoted_identifier(r['schema'])}.{quoted_identifier(r['name'])}" for r in rows
        )

    def plan_pairs(self, keys: Iterable[ClassKey], hint_sets: Iterable[HintSet]) -> PlanPairs:
        """Which plans hint sets lead to, for the kept statements of classes; nothing is run.

        Raises:
            ServerConnectionError: the server was lost.
        """
        arms = [DEFAULT_HINT_SET, *hint_sets]
        found: dict[tuple[ClassKey, frozenset[tuple[str, str]]], list[tuple[str, str]]] = {}
        for key in keys:
            for verdict in self._verdicts(key):
                for hint_set, pair in self._pairs(key, verdict, arms):
                    settings = frozenset(hint_set.settings.items())
                    found.setdefault((key, settings), []).append(pair)
        return found

    # -- inside -------------------------------------------------------------------------------

    def _pairs(
        self, key: ClassKey, verdict: ReadOnlyVerdict, arms: list[HintSet]
    ) -> Iterator[tuple[HintSet, tuple[str, str]]]:
        if not verdict.is_read_only:
            return
        try:
            plans = self._runners.under(key.search_path).explain(
                verdict, arms, timeout_s=_PLANNING_TIMEOUT_S
            )
        except ServerConnectionError:
            raise
        except ServerError:
            return
        default = plans[0]
        for hint_set, plan in zip(arms[1:], plans[1:], strict=True):
            # A plan that is not known is one of its own: it equals no other.
            hashes = [one.plan_hash if one is not None else "" for one in (default, plan)]
            yield hint_set, (hashes[0], hashes[1] or "unknown")

    def _verdicts(self, key: ClassKey) -> Iterator[ReadOnlyVerdict]:
        for sample in self._book.samples(key):
            try:
                verdict = self._check.check(sample.text, sample.key.search_path)
            except ServerConnectionError:
                raise
            except ServerError:  # not now
                verdict = ReadOnlyVerdict("", "a lock is in the way, or the server is busy")
            yield verdict
