"""Statements cancelled, locks, lost statistics, and a clock that somebody sets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone

from tests.faults.catalogue import lives
from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.world import World

_TROUBLE_S = 4.0
_HOUR_S = 3600.0
_CANCEL = """
SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
 WHERE application_name IN ('autopilot_tuner', 'autopilot_watchdog')
"""
_GO_BACK = (
    "SELECT pg_stat_reset_shared('wal')",
    "SELECT pg_stat_reset_shared('bgwriter')",
    "SELECT pg_stat_statements_reset(userid, dbid, queryid) FROM pg_stat_statements"
    " ORDER BY calls DESC LIMIT 3",
)
_NO_SERVERS = 1e13
"""No rate of any counter reaches this."""
_MORE_THAN_FIT = 5500
"""Statements; pg_stat_statements.max is 5000."""


@fault(9, "statements: cancelled again and again in mid-trial", repeats=20)
def statements_cancelled(world: World, number: int) -> float | None:
    """As a statement_timeout does that fits nobody; measured from its end."""
    world.in_mid_trial()
    world.execute("ALTER ROLE CURRENT_USER SET statement_timeout = '1ms'")
    try:
        world.resume_trials()
        end_s = time.monotonic() + _TROUBLE_S
        with closing(world.connect(options="-c statement_timeout=0")) as connection:
            cursor = connection.cursor()
            while time.monotonic() < end_s:
                cursor.execute(_CANCEL)
                time.sleep(0.01)
            cursor.execute("ALTER ROLE CURRENT_USER RESET statement_timeout")
    finally:
        with closing(world.connect(options="-c statement_timeout=0")) as connection:
            connection.cursor().execute("ALTER ROLE CURRENT_USER RESET statement_timeout")
    return world.restored(time.monotonic())


@fault(9, "locks: what the tuner reads is locked in mid-trial", repeats=20)
def locked(world: World, number: int) -> float | None:
    """It waits half a second, not longer; measured from the lock's end."""
    world.in_mid_trial()
    with closing(world.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE pg_file_settings IN ACCESS EXCLUSIVE MODE")
        world.resume_trials()
        time.sleep(_TROUBLE_S)
        cursor.execute("ROLLBACK")
    return world.restored(time.monotonic())


@fault(9, "statistics: reset in mid-trial, counters begin anew", repeats=20, in_ci=0)
def statistics_reset(world: World, number: int) -> None:
    """Such a window is void; the candidate leaves as it should."""
    world.in_mid_trial()
    world.execute("SELECT pg_stat_reset(), pg_stat_statements_reset()")
    world.resume_trials()
    world.restored(time.monotonic())
    assert world.trials().lives


@fault(9, "statistics: pg_stat_statements evicts most of it in mid-trial", repeats=10, in_ci=0)
def statistics_evicted(world: World, number: int) -> None:
    """The same."""
    world.in_mid_trial()
    with closing(world.connect()) as connection:
        cursor = connection.cursor()
        for n in range(_MORE_THAN_FIT):
            # Another operator is another statement.
            operators = f"{n:013b}".replace("0", "+").replace("1", "-")
            cursor.execute("SELECT 1" + "".join(f" {sign} 1" for sign in operators))
    world.resume_trials()
    world.restored(time.monotonic())
    assert world.trials().lives


@fault(9, "counters: single ones go back again and again in mid-trial", repeats=20)
def counters_go_back(world: World, number: int) -> float | None:
    """No window holds a value that cannot be; measured from the end."""
    world.in_mid_trial()
    began = datetime.now(timezone.utc)
    world.trials().resume()
    end_s = time.monotonic() + _TROUBLE_S
    with closing(world.connect()) as connection:
        cursor = connection.cursor()
        while time.monotonic() < end_s:
            for statement in _GO_BACK:
                cursor.execute(statement)
            time.sleep(0.2)
    took_s = world.restored(time.monotonic())
    assert world.trials().lives
    for window in world.store.windows(since=began):
        wrong = {name: rate for name, rate in window.rates.items() if not 0 <= rate < _NO_SERVERS}
        assert not wrong, wrong
    return took_s


@fault(9, "clock: set back by an hour while the tuner hangs", repeats=20)
def clock_back(world: World, number: int) -> float | None:
    """Its lease does not last an hour longer."""
    return _clock_step(world, -_HOUR_S)


@fault(9, "clock: set forward by an hour while the tuner hangs", repeats=20, in_ci=0)
def clock_forward(world: World, number: int) -> float | None:
    """The same, the other way round."""
    return _clock_step(world, _HOUR_S)


def _clock_step(world: World, step_s: float) -> float | None:
    world.in_mid_trial()
    with _clock_off_by(world, step_s):
        took_s = world.restored(time.monotonic())
        world.end_trials()
    return took_s


@fault(9, "clock: set to and fro under a tuner that lives", repeats=20, in_ci=0)
def clock_to_and_fro(world: World, number: int) -> None:
    """It keeps its right to act."""
    tuner = world.trials()
    epoch = world.epoch
    for step_s in (-_HOUR_S, _HOUR_S):
        with _clock_off_by(world, step_s):
            time.sleep(_TROUBLE_S)
    assert tuner.lives
    assert world.epoch == epoch, "a living tuner lost its right to act"
    world.in_mid_trial()
    tuner.resume()
    world.restored(time.monotonic())


@contextlib.contextmanager
def _clock_off_by(world: World, step_s: float) -> Iterator[None]:
    """The time of day of all processes, not the machine's."""
    clock_file = world.data_dir / lives.CLOCK_FILE
    clock_file.with_suffix(".new").write_text(str(step_s))
    clock_file.with_suffix(".new").replace(clock_file)
    try:
        yield
    finally:
        clock_file.unlink()
