"""Takes statements from their sources into the book, and their classes into the register."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from backend.domain.records import EventRecord
from backend.domain.steering import ClassKey, SteeringMode, SteeringState
from backend.errors import SteeringError
from backend.protocols import Clock, Store
from backend.settings.steering import SteeringSection
from backend.steering.places import SteeringPlaces
from backend.steering.register import SteeringRegister
from backend.steering.statements.query_keys import with_query_keys
from backend.steering.statements.sample_book import SampleBook, samples_from_plug_ins
from backend.steering.statements.samples import Gathered
from backend.steering.statements.sql_files import read_sql_files
from backend.steering.statements.statement_logs import read_statement_logs

log = logging.getLogger(__name__)

MOST_REMEMBERED = 1000
"""Classes without a statement of which it is remembered that there is nothing to find."""
_TRIED = (SteeringState.REFUSED, SteeringState.DEFAULT_BEST)


class StatementIntake:
    """Asked every few seconds by the tuner, once by the command line.

    Args:
        settings: the files and logs to read.
        places: the plug-ins' spool.
        book: takes the statements.
        register: takes their classes.
        store: tells how telemetry knows them; events go there.
        clock: time.
        database: whose statements are taken from logs; None: of all.
    """

    def __init__(
        self,
        settings: SteeringSection,
        places: SteeringPlaces,
        book: SampleBook,
        register: SteeringRegister,
        store: Store,
        clock: Clock,
        database: str | None = None,
    ) -> None:
        self._database = database
        self._settings, self._places, self._book = settings, places, book
        self._register, self._store, self._clock = register, store, clock
        self._files_read = False
        self._told: set[str] = set()

    def take(self) -> None:
        """Take what is new. What cannot be read is told once, the rest is taken all the same."""
        if not self._files_read:
            self._files_read = True
            self._try(self.read_files)
        self._try(lambda: self._add(samples_from_plug_ins(self._places.spooled_samples)))
        if self._settings.logs:
            self._try(self._read_logs)
        kept = set(self._book.keys())
        for key in kept - {record.key for record in self._register.classes()}:
            self._register.add(key, self._book.text(key))
        self._forget_but(kept)
        self._map_telemetry()

    def _add(self, gathered: Gathered, log_positions: Mapping[str, int] | None = None) -> None:
        self._book.add(gathered.samples, gathered.uses, log_positions=log_positions)
        if gathered.skipped:
            log.info("statements were left out: %s", gathered.left_out())

    def read_files(self) -> None:
        """Take the statements of the files that the settings name.

        Raises:
            SteeringError: one cannot be read; none of them was taken.
        """
        self._files_read = True
        search_path, now = self._settings.search_path, self._clock.now()
        self._add(read_sql_files(self._settings.statements, search_path=search_path, at=now))

    def _read_logs(self) -> None:
        gathered, positions = read_statement_logs(
            self._settings.logs,
            self._book.log_positions(),
            search_path=self._settings.search_path,
            at=self._clock.now(),
            database=self._database,
        )
        self._add(gathered, positions)

    def _try(self, take: Callable[[], None]) -> None:
        try:
            take()
        except (SteeringError, OSError) as error:
            told = str(error)
            if told not in self._told:
                self._told.add(told)
                log.warning("statements could not be read: %s", told)
                self._store.add_event(EventRecord(self._clock.now(), "warning", "statements", told))

    def _forget_but(self, kept: set[ClassKey]) -> None:
        """Forget classes of which no statement is kept; what was found out newest stays longest."""
        gone = [
            record
            for record in self._register.classes()
            if record.key not in kept and record.mode is SteeringMode.AUTO
        ]
        tried = [record for record in gone if record.state in _TRIED]
        tried.sort(key=lambda record: record.updated_at, reverse=True)
        waiting = [record for record in gone if record.state is SteeringState.WAITING]
        self._register.forget([*waiting, *tried[MOST_REMEMBERED:]])

    def _map_telemetry(self) -> None:
        """Note under which keys pg_stat_statements knows the classes."""
        known = self._register.classes()
        if all(record.query_keys for record in known):
            return
        found = with_query_keys(known, self._store.query_classes())
        for record, mapped in zip(known, found, strict=True):
            if mapped.query_keys != record.query_keys:
                self._register.update(record.key, query_keys=mapped.query_keys)
