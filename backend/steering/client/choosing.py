"""Which entry of the steering table a statement gets, if any."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from .messages import Messages, messages_for
from .statements import CACHED_TEXTS, NotNow, StatementReader
from .table import SteeringEntry, SteeringTable

logger = logging.getLogger(__package__)


@dataclass(frozen=True, eq=False)
class Choice:
    """An entry with the texts that carry it out."""

    entry: SteeringEntry
    messages: Messages


class Chooser:
    """Answers for one steering table; a new table gets a new chooser.

    Args:
        table: what may be chosen.
        reader: reads the statements' texts.
        search_path: only entries for this one; None: those of statements that the table holds
            under one search path only (the server checks it in either case, see `messages`).
        refused: entries that the server would not have.
    """

    def __init__(
        self,
        table: SteeringTable,
        reader: StatementReader,
        search_path: str | None = None,
        refused: Iterable[SteeringEntry] = (),
    ) -> None:
        self.refused = list(refused)
        self._reader = reader
        self._choices: dict[str, Choice] = {}
        ambiguous = 0
        for fingerprint, entries in table.by_fingerprint.items():
            wanted = [e for e in entries if search_path is None or e.search_path == search_path]
            ambiguous += len(wanted) > 1
            if len(wanted) == 1 and wanted[0].mode != "off" and wanted[0] not in self.refused:
                self._choices[fingerprint] = Choice(wanted[0], messages_for(wanted[0]))
        if ambiguous:
            logger.warning(
                "%d classes are left alone, since the steering table holds them under several "
                "search paths; say which with query_steering_search_path",
                ambiguous,
            )
        # The bound method is kept by its own cache, so a chooser is freed by the cycle collector.
        self._chosen = lru_cache(CACHED_TEXTS)(self._choose)

    @property
    def is_idle(self) -> bool:
        """Whether no statement can be chosen."""
        return not self._choices

    def choose(self, text: str) -> Choice | None:
        """What to do for a statement; None: leave it alone.

        Args:
            text: as it is handed to the driver.
        """
        try:
            return self._chosen(text)
        except NotNow:
            return None

    def _choose(self, text: str) -> Choice | None:
        fingerprint = self._reader.fingerprint(text)
        choice = self._choices.get(fingerprint) if fingerprint is not None else None
        if choice is None:
            return None
        functions = self._reader.functions_called(text)
        if functions is None or not functions <= choice.entry.functions:
            return None
        return choice

    def give_up(self, choice: Choice) -> None:
        """Choose this one no more: the server would not have it."""
        self.refused.append(choice.entry)
        if self._choices.get(choice.entry.fingerprint) is choice:
            self._choices.pop(choice.entry.fingerprint, None)
        self._chosen.cache_clear()
