"""Waiting for a condition, with an end: for tests of what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

from backend.domain.knobs import KnobValue
from backend.protocols import TargetDatabase


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Look until the condition holds; fail with ``what`` was waited for."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.01)


def set_and_wait(target: TargetDatabase, name: str, value: KnobValue) -> None:
    """Write an entry, activate it and wait until it is in effect."""
    target.write_entries({name: value})
    target.reload()
    wait_for(lambda: target.read_knobs([name])[name].value == value, f"{name} = {value}")
