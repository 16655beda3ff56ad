"""The SQLAlchemy plug-in: ``create_engine(url, plugins=["query_steering"], ...)``.

https://docs.sqlalchemy.org/en/20/core/connections.html#sqlalchemy.engine.CreateEnginePlugin
"""

from __future__ import annotations

import logging
import os
import random
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, CreateEnginePlugin, Engine
from sqlalchemy.exc import ArgumentError

from .background import Background
from .choosing import Chooser
from .rewriting import StatementRewriter
from .sample_spool import SampleSpoolWriter
from .sampling import SampledClass, Sampler, SampleReporter
from .source import TableFile, TableSource
from .spool import SpoolWriter
from .statements import StatementReader
from .table import EMPTY, SteeringTable
from .timings import ClassTimings, Recorder

Reporter = Callable[[Sequence[ClassTimings]], None]

DEFAULT_SHARE = 0.02
_YES = ("true", "1", "yes", "on")

logger = logging.getLogger(__package__)


class QuerySteeringPlugin(CreateEnginePlugin):
    """Steers an engine's plain queries by a steering table.

    Arguments of ``create_engine`` (or of the URL's query, as text):

    * ``query_steering_table``: path of the table's file, or a `TableSource`. Required.
    * ``query_steering_report``: path of the spool file, or a function that takes the timings,
      called in a thread of the plug-in; None: nothing is reported.
    * ``query_steering_samples``: path of a spool file, or a function, that takes samples of
      statements with their literals, which may be data of people; None: none are taken.
    * ``query_steering_default_share``: share of the executions of a steered class that runs the
      default plan, in [0, 1] (0.02).
    * ``query_steering_seed``: makes the choice of these executions repeatable.
    * ``query_steering_search_path``: as ``SHOW search_path`` prints it, where the table holds a
      statement under several, or sessions change it after they were opened.
    * ``query_steering_comments``: send hints as comments for pg_hint_plan, with any driver.

    Raises:
        sqlalchemy.exc.ArgumentError: an argument is missing or out of its bounds.
    """

    ARGUMENTS = (
        "query_steering_table",
        "query_steering_report",
        "query_steering_samples",
        "query_steering_default_share",
        "query_steering_seed",
        "query_steering_search_path",
        "query_steering_comments",
    )

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        given: dict[str, Any] = {
            name: kwargs.pop(name, url.query.get(name)) for name in self.ARGUMENTS
        }
        self._source = _table_source(given["query_steering_table"])
        self._reporter = _reporter(given["query_steering_report"])
        self._sample_reporter = _sample_reporter(given["query_steering_samples"])
        self._default_share = _share(given["query_steering_default_share"])
        self._random = random.Random(given["query_steering_seed"])
        self._search_path: str | None = given["query_steering_search_path"]
        self._comments = str(given["query_steering_comments"]).lower() in _YES
        if self._comments and self._search_path is None:
            raise ArgumentError(
                "query_steering_comments needs query_steering_search_path: a comment cannot ask "
                "the server under which schemas it runs"
            )

    def update_url(self, url: URL) -> URL:
        """Take our arguments out of the URL."""
        return url.difference_update_query(self.ARGUMENTS)

    def engine_created(self, engine: Engine) -> None:
        """Listen to the engine, if its statements can be steered."""
        dialect = engine.dialect
        if dialect.name != "postgresql" or not (self._comments or dialect.driver == "psycopg2"):
            logger.warning(
                "nothing is steered with %s+%s: only psycopg2, or query_steering_comments with "
                "another driver of PostgreSQL",
                dialect.name,
                dialect.driver,
            )
            return
        samples = self._sample_reporter
        if samples is not None and dialect.driver != "psycopg2":
            logger.warning("statements are sampled with psycopg2 only, not with %s", dialect.driver)
            samples = None
        steering = EngineSteering(
            self._source,
            self._reporter,
            samples,
            StatementReader(interpolated=dialect.paramstyle in ("format", "pyformat")),
            search_path=self._search_path,
            default_share=self._default_share,
            random_numbers=self._random,
            comments=self._comments,
        )
        steering.listen_to(engine)


class EngineSteering:
    """All that steers one engine; it holds no reference to it, so that the engine can go."""

    def __init__(
        self,
        source: TableSource,
        reporter: Reporter | None,
        sample_reporter: SampleReporter | None,
        reader: StatementReader,
        *,
        search_path: str | None,
        default_share: float,
        random_numbers: random.Random,
        comments: bool,
    ) -> None:
        self._source = source
        self._reporter = reporter
        self._sample_reporter = sample_reporter
        self._reader = reader
        self._search_path = search_path
        self._table = EMPTY
        self._chooser = Chooser(EMPTY, reader)
        self._recorder = Recorder()
        self._sampler = Sampler(reader, search_path) if sample_reporter is not None else None
        self._rewriter = StatementRewriter(
            self._chooser,
            self._recorder,
            self._sampler,
            default_share=default_share,
            random_numbers=random_numbers,
            comments=comments,
        )
        self._background = Background(self._begin, self.refresh, self.report)
        self._told: set[str] = set()

    def listen_to(self, engine: Engine) -> None:
        """Begin; the thread starts with the process's first connection."""
        self._rewriter.listen_to(engine)
        event.listen(engine, "connect", self._connected)
        weakref.finalize(engine, self._background.stop)
        _STEERINGS[engine] = self

    def _connected(self, session: Any, record: Any) -> None:
        self._background.ensure_running()
        if self._sampler is not None:
            self._sampler.ask_search_path(session, record)

    def _begin(self) -> None:
        # What a parent process noted before it forked is the parent's to report.
        self._recorder.take()
        if self._sampler is not None:
            self._sampler.take()
        self.refresh()

    def refresh(self) -> None:
        """Use the table as it is now; without one, or after its time, nothing is steered."""
        try:
            self._use(self._source.refresh())
        except Exception as error:
            self._tell_once("nothing is steered: the table's source failed", error)
            self._use(EMPTY)

    def _use(self, table: SteeringTable) -> None:
        expires_at_s = table.expires_at_s
        if expires_at_s is not None and time.time() >= expires_at_s:
            if table.entries:
                self._tell_once("nothing is steered: the table has expired", expires_at_s)
            table = EMPTY
        if table is self._table:
            return
        if table.entries != self._table.entries:
            refused = self._chooser.refused
            self._chooser = Chooser(table, self._reader, self._search_path, refused)
            self._rewriter.use(self._chooser)
        self._table = table

    def report(self) -> None:
        """Hand out the timings, and the samples, that were noted since the last call."""
        timings = self._recorder.take()
        if timings and self._reporter is not None:
            try:
                self._reporter(timings)
            except Exception as error:
                self._tell_once("timings were lost", error)
        self._report_samples(self._sampler.take() if self._sampler is not None else [])

    def _report_samples(self, samples: list[SampledClass]) -> None:
        if not samples or self._sample_reporter is None:
            return
        try:
            self._sample_reporter(samples)
        except Exception as error:
            # A function's words may hold what it was given; those of the spool name the file.
            is_told = isinstance(self._sample_reporter, SampleSpoolWriter)
            self._tell_once("samples were lost", error if is_told else type(error).__name__)

    def _tell_once(self, what: str, why: object) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s: %s", what, why)


_STEERINGS: weakref.WeakKeyDictionary[Engine, EngineSteering] = weakref.WeakKeyDictionary()


def steering_of(engine: Engine) -> EngineSteering | None:
    """What steers an engine: to `refresh` its table or `report` what it noted at once."""
    return _STEERINGS.get(engine)


def _table_source(given: Any) -> TableSource:
    if isinstance(given, (str, os.PathLike)):
        return TableFile(Path(given))
    if isinstance(given, TableSource):
        return given
    raise ArgumentError(
        f"query_steering_table is {given!r}; give the path of the steering table, or an object "
        "with a method refresh() that returns a SteeringTable"
    )


def _reporter(given: Any) -> Reporter | None:
    if isinstance(given, (str, os.PathLike)):
        return SpoolWriter(Path(given))
    if given is None or callable(given):
        return given  # type: ignore[no-any-return]
    raise ArgumentError(f"query_steering_report is {given!r}; give a path, a function or None")


def _sample_reporter(given: Any) -> SampleReporter | None:
    if isinstance(given, (str, os.PathLike)):
        return SampleSpoolWriter(Path(given))
    if given is None or callable(given):
        return given  # type: ignore[no-any-return]
    raise ArgumentError(f"query_steering_samples is {given!r}; give a path, a function or None")


def _share(given: Any) -> float:
    try:
        share = DEFAULT_SHARE if given is None else float(given)
    except (TypeError, ValueError):
        share = -1
    if not 0 <= share <= 1:
        raise ArgumentError(f"query_steering_default_share is {given!r}; it must lie in [0, 1]")
    return share
