"""The statements that the explorer may try: by class, with their literals, in a private file."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from backend.domain.steering import ClassKey, StatementSample
from backend.steering.client.sample_spool import take_samples
from backend.steering.client.statements import MAX_TEXT_LENGTH, PARSER
from backend.steering.places import FOLDER_MODE
from backend.steering.statements.samples import (
    ClassUse,
    Gathered,
    NotASampleError,
    plain_query,
    without_literals,
)

MAX_FILE_BYTES = 32 * 1024**2
USE_HALF_LIFE_S = 6 * 3600.0
"""After so long without an execution, a class counts half: what runs now is worth exploring."""

_FORMAT = "statement samples"
_VERSION = 1
_SAVE_INTERVAL = timedelta(minutes=1)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAX_POSITIONS = 1000
_MOST_USE = 1e15
"""Executions, or seconds: whatever a source may say, the file can be read again."""

logger = logging.getLogger(__name__)


@dataclass
class _Class:
    """What is kept of a class: statements, the newest first, and its use as of ``used_at``."""

    samples: list[StatementSample] = field(default_factory=list)
    executions: float = 0.0
    timed: float = 0.0
    total_s: float = 0.0
    used_at: datetime = _LONG_AGO

    def fade(self, at: datetime) -> None:
        """Halve the use for every half-life since it was noted."""
        if at > self.used_at:
            kept = 0.5 ** ((at - self.used_at).total_seconds() / USE_HALF_LIFE_S)
            self.executions *= kept
            self.timed *= kept
            self.total_s *= kept
            self.used_at = at

    def value(self, at: datetime) -> tuple[float, float]:
        """Seconds of its executions (0 where no time is known), and their number."""
        kept = 0.5 ** (max(0.0, (at - self.used_at).total_seconds()) / USE_HALF_LIFE_S)
        mean_s = self.total_s / self.timed if self.timed else 0.0
        return self.executions * kept * mean_s, self.executions * kept


class SampleBook:
    """Statements by class, kept over restarts; may be used from several threads.

    Args:
        path: the file; readable by its owner alone, written whole and renamed into place. One that
            is damaged, or of another grammar, is not used: the book starts empty.
        per_class: different statements that are kept of a class, the newest.
        max_classes: the least valuable beyond that are forgotten.
        max_bytes: of the file; likewise.
    """

    def __init__(
        self,
        path: Path,
        *,
        per_class: int = 12,
        max_classes: int = 500,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self._path = path
        self._per_class = per_class
        self._max_classes = max_classes
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._classes: dict[ClassKey, _Class] = {}
        self._positions: dict[str, int] = {}
        self._now = _LONG_AGO
        self._saved_at = _LONG_AGO
        self._load()

    # -- reading -----------------------------------------------------------------------------------

    def keys(self) -> list[ClassKey]:
        """The classes, the most valuable first: by `weight`, then by executions."""
        with self._lock:
            return self._ordered()

    def samples(self, key: ClassKey) -> tuple[StatementSample, ...]:
        """Different statements of a class, the newest first; empty where it is not known."""
        with self._lock:
            found = self._classes.get(key)
            return tuple(found.samples) if found is not None else ()

    def text(self, key: ClassKey) -> str:
        """The class's statement with ``$n`` for every constant, without comments.

        Raises:
            KeyError: the class is not known.
        """
        with self._lock:
            query = self._classes[key].samples[0].text
        return without_literals(query)

    def weight(self, key: ClassKey) -> float:
        """Executions times their mean time, in seconds, the older the less.

        0 where no execution or no time is known.
        """
        with self._lock:
            found = self._classes.get(key)
            return found.value(self._now)[0] if found is not None else 0.0

    def log_positions(self) -> dict[str, int]:
        """How far the server's logs were read (see `read_statement_logs`)."""
        with self._lock:
            return dict(self._positions)

    # -- writing -----------------------------------------------------------------------------------

    def add(
        self,
        samples: Iterable[StatementSample] = (),
        uses: Iterable[ClassUse] = (),
        *,
        log_positions: Mapping[str, int] | None = None,
    ) -> None:
        """Take statements in, and how much classes were used.

        Saved at once where a statement is new, else at most every minute: after a crash, a minute
        of a log may be counted twice.

        Args:
            samples: the oldest first; one that is known already counts as newest.
            uses: of classes that are known, or are among ``samples``; others are passed over.
            log_positions: replaces what `log_positions` returns.

        Raises:
            OSError: the file cannot be written; the statements are in the book all the same.
        """
        with self._lock:
            is_new = False
            for sample in samples:
                is_new |= self._take_in(sample)
            for use in uses:
                self._count(use)
            if log_positions is not None:
                self._positions = dict(list(log_positions.items())[-_MAX_POSITIONS:])
            if len(self._classes) > self._max_classes:
                for key in self._least_valuable_first()[: -self._max_classes]:
                    del self._classes[key]
            if is_new or self._now - self._saved_at >= _SAVE_INTERVAL:
                self._save()
                self._saved_at = self._now

    def _take_in(self, sample: StatementSample) -> bool:
        kept = self._classes.setdefault(sample.key, _Class()).samples
        known = [other for other in kept if other.text == sample.text]
        for other in known:
            kept.remove(other)
        kept.insert(0, sample)
        del kept[self._per_class :]
        return not known

    def _count(self, use: ClassUse) -> None:
        self._now = max(self._now, use.until)
        found = self._classes.get(use.key)
        if found is not None:
            found.fade(use.until)
            found.executions = min(found.executions + use.executions, _MOST_USE)
            found.timed = min(found.timed + use.timed, _MOST_USE)
            found.total_s = min(found.total_s + use.total_s, _MOST_USE)

    def _ordered(self) -> list[ClassKey]:
        values = {key: found.value(self._now) for key, found in self._classes.items()}
        return sorted(values, key=lambda key: (-values[key][0], -values[key][1], key))

    def _least_valuable_first(self) -> list[ClassKey]:
        """What is forgotten when it is too much; last, what an operator's files ask for."""
        valuable_last = self._ordered()[::-1]
        return sorted(valuable_last, key=lambda k: self._classes[k].samples[0].source == "file")

    # -- the file ----------------------------------------------------------------------------------

    def _save(self) -> None:
        lines = {key: self._line(key) for key in self._ordered()}
        size = sum(len(line) + 2 for line in lines.values())
        for key in self._least_valuable_first():
            if size <= self._max_bytes:
                break
            size -= len(lines.pop(key)) + 2
            del self._classes[key]
        head = {
            "format": _FORMAT,
            "version": _VERSION,
            "parser": PARSER,
            "log_positions": self._positions,
        }
        body = ",\n".join(lines.values())
        text = f'{json.dumps(head)[:-1]}, "classes": [\n{body}\n]}}\n'
        self._path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:  # mkstemp makes it with 0600
                file.write(text.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    def _line(self, key: ClassKey) -> str:
        found = self._classes[key]
        return json.dumps(
            {
                "fingerprint": key.fingerprint,
                "search_path": key.search_path,
                "executions": found.executions,
                "timed": found.timed,
                "total_s": found.total_s,
                "used_at": found.used_at.isoformat(),
                "samples": [
                    {"text": s.text, "seen_at": s.seen_at.isoformat(), "source": s.source}
                    for s in found.samples
                ],
            }
        )

    def _load(self) -> None:
        try:
            if not stat.S_ISREG(os.lstat(self._path).st_mode):
                raise ValueError("it is no file")
            with self._path.open("rb") as file:
                data = file.read(self._max_bytes + 65_536)
            document = json.loads(data)
            if [document[k] for k in ("format", "version", "parser")] != [
                _FORMAT,
                _VERSION,
                PARSER,
            ]:
                raise ValueError("it is of another version")
            self._classes = dict(_read_class(item) for item in document["classes"])
            self._now = max((c.used_at for c in self._classes.values()), default=_LONG_AGO)
            self._positions = {str(k): int(v) for k, v in document["log_positions"].items()}
        except FileNotFoundError:
            return
        except (AttributeError, LookupError, OSError, TypeError, ValueError, RecursionError,
                NotASampleError) as error:  # fmt: skip
            # Its kind alone: an error's words may hold what the file holds.
            self._classes, self._positions, self._now = {}, {}, _LONG_AGO
            logger.warning(
                "the statements kept in %s are not used, new ones will be gathered: %s",
                self._path,
                type(error).__name__,
            )


def _read_class(item: Any) -> tuple[ClassKey, _Class]:
    """Check one class of the file.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    key = ClassKey(_text(item["fingerprint"]), _text(item["search_path"]))
    samples = [
        StatementSample(key, _text(s["text"]), _moment(s["seen_at"]), _text(s["source"]))
        for s in item["samples"]
    ]
    if not samples:
        raise ValueError("a class without statements")
    plain_query(samples[0].text)  # which people are shown, without its literals
    executions, timed, total_s = (
        _amount(item[name]) for name in ("executions", "timed", "total_s")
    )
    return key, _Class(samples, executions, timed, total_s, _moment(item["used_at"]))


def _amount(value: Any) -> float:
    amount = float(value)
    if not 0 <= amount <= _MOST_USE:
        raise ValueError("no amount, or a large one")
    return amount


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH:
        raise ValueError("no text, or a long one")
    return value


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment


def samples_from_plug_ins(path: Path) -> Gathered:
    """Take what plug-ins noted, for the one reader of their spool; call it every few seconds.

    Args:
        path: the spool (`SteeringPlaces.spooled_samples`).

    Raises:
        OSError: the folder cannot be read or written.
    """
    reports, broken = take_samples(path)
    found = Gathered()
    if broken:
        found.skipped["lines that are no samples, or of another pglast"] += broken
    now = datetime.now(timezone.utc)
    for report in reports:
        key = ClassKey(report.fingerprint, report.search_path)
        for sample in report.samples:
            try:
                query = plain_query(sample.text)
            except NotASampleError as error:
                found.skip(str(error))
                continue
            seen_at = min(now, datetime.fromtimestamp(sample.seen_at_s, timezone.utc))
            found.samples.append(StatementSample(key, query, seen_at, "plug-in"))
        found.uses.append(ClassUse(key, report.executions, report.executions, report.total_s, now))
    return found
