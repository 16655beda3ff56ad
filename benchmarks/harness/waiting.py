"""Time that passes while somebody shows signs of life."""

from __future__ import annotations

from collections.abc import Callable

from backend.errors import StaleEpochError
from backend.lease import TunerLease
from backend.protocols import Clock

TICK_S = 0.25


def pass_time(
    clock: Clock, seconds: float, keep_alive: Callable[[], object], tick_s: float = TICK_S
) -> None:
    """Let time pass; ``keep_alive`` is called at its beginning and after every tick but the last.

    What it raises ends the waiting.
    """
    end_s = clock.monotonic_s() + seconds
    while (left_s := end_s - clock.monotonic_s()) > 1e-9:
        keep_alive()
        clock.sleep(min(tick_s, left_s))


def renew(lease: TunerLease) -> None:
    """Show that we are alive and may act.

    Raises:
        StaleEpochError: somebody else acts on this data folder.
    """
    if not lease.renew():
        raise StaleEpochError(
            "another tuner acts on this data folder",
            remedy="stop it, or choose a data folder of its own: --data-dir",
        )
