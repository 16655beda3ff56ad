"""The offered load, as a benchmark sees it: a child process, its counts, its end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from sqlalchemy.engine import URL

from backend.errors import WorkloadError
from benchmarks.harness.offers import LoadCounts, Offer, to_text

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "benchmarks.harness.load_process")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.1


class OfferedLoad:
    """The clients at work; a context manager.

    Args:
        url: the database.
        offer: what they send.
        keep_alive: called again and again while their start and their end are waited for.
    """

    def __init__(
        self, url: URL, offer: Offer, keep_alive: Callable[[], object] = lambda: None
    ) -> None:
        self._request = to_text(url, offer)
        self._keep_alive = keep_alive
        self._counts = LoadCounts()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by stop)

    def __enter__(self) -> OfferedLoad:
        """See :meth:`start`."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """See :meth:`stop`."""
        self.stop()

    def start(self) -> None:
        """Start the clients and wait until the first statement has come back.

        Raises:
            WorkloadError: they ended, or nothing came back in time.
        """
        # A session of its own: a Ctrl-C in the terminal reaches us alone, and we end the clients.
        self._process = subprocess.Popen(
            COMMAND,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        try:
            assert self._process.stdin is not None  # both were asked for
            assert self._process.stdout is not None
            self._process.stdin.write(self._request + "\n")
            self._process.stdin.flush()
            self._reader = threading.Thread(
                target=self._read, args=(self._process.stdout,), daemon=True
            )
            self._reader.start()
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while self.counts().completed == 0:
                if time.monotonic() > deadline_s:
                    raise WorkloadError(f"no statement came back within {START_TIMEOUT_S:g} s")
                self._keep_alive()
                time.sleep(POLL_S)
        except BaseException:
            self.stop()
            raise

    def counts(self) -> LoadCounts:
        """Totals since the start, at most a second old.

        Raises:
            WorkloadError: the clients have ended.
        """
        if self._process is None or self._process.poll() is not None:
            raise WorkloadError(f"the clients have ended: {self._last_words()}")
        return self._counts

    def stop(self) -> None:
        """End the clients, statements in flight included; kill those that do not end."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None  # it was asked for
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            deadline_s = time.monotonic() + STOP_TIMEOUT_S
            while process.poll() is None and time.monotonic() < deadline_s:
                self._keep_alive()
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if self._reader is not None:
                self._reader.join(STOP_TIMEOUT_S)
            if process.stdout is not None:
                process.stdout.close()
            self._errors.close()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self._counts = LoadCounts(**json.loads(line))

    def _last_words(self) -> str:
        if self._errors.closed:
            return "they were stopped"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "without a word"
