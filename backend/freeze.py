"""The freeze switch: while it is on, nothing is changed but by a rollback.

It lives in the store, so that it can be thrown whether or not a tuner runs; the tuner looks at it
at each tick.
"""

from __future__ import annotations

from backend.domain.records import EventRecord, FreezeRecord
from backend.printable import printable
from backend.protocols import Clock, Store

MOST_REASON = 300


def is_frozen(store: Store) -> bool:
    """Whether it is on. A store of before the switch had its own record has it in the status."""
    switch, status = store.freeze(), store.status()
    if switch is None:
        return status is not None and status.frozen
    return switch.frozen


def throw(store: Store, clock: Clock, frozen: bool, actor: str, reason: str = "") -> str:
    """Throw the switch; what was done, for people."""
    reason = " ".join(printable(reason).split())[:MOST_REASON]
    store.save_freeze(FreezeRecord(frozen, actor, clock.now(), reason))
    told = "frozen: only rollbacks are made" if frozen else "unfrozen"
    why = f" ({reason})" if reason else ""
    event = f"{actor}: {told}{why}"
    store.add_event(EventRecord(clock.now(), "warning" if frozen else "info", "freeze", event))
    return told
