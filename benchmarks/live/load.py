"""The offered load, as the benchmark sees it: a child process, its counts, its end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from backend.errors import WorkloadError
from benchmarks.live.load_process import LoadCounts

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.1


class OfferedLoad:
    """The clients at work; a context manager.

    Args:
        url: the database.
        offer: what :mod:`benchmarks.live.load_process` is asked for.
    """

    def __init__(self, url: URL, offer: Mapping[str, Any]) -> None:
        self._request = {**offer, "url": url.render_as_string(hide_password=False)}
        self._counts = LoadCounts()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the clients)

    def __enter__(self) -> OfferedLoad:
        """Start the clients and wait until the first statement has come back.

        Raises:
            WorkloadError: they ended, or nothing came back in time.
        """
        # A session of its own: a Ctrl-C in the terminal reaches us alone, and we end the clients.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.live.load_process"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        try:
            assert self._process.stdin is not None  # it was asked for
            self._process.stdin.write(json.dumps(self._request) + "\n")
            self._process.stdin.flush()
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while self.counts().completed == 0:
                if time.monotonic() > deadline_s:
                    raise WorkloadError(f"no statement came back within {START_TIMEOUT_S:g} s")
                time.sleep(POLL_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def counts(self) -> LoadCounts:
        """Totals since the start, at most a second old.

        Raises:
            WorkloadError: the clients have ended.
        """
        if self._process is None or self._process.poll() is not None:
            raise WorkloadError(f"the clients have ended: {self._last_words()}")
        return self._counts

    def __exit__(self, *_: object) -> None:
        """End the clients; kill those that do not end."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None  # it was asked for
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(STOP_TIMEOUT_S)
        if process.stdout is not None:
            process.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        for line in process.stdout:
            self._counts = LoadCounts(**json.loads(line))

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "without a word"
