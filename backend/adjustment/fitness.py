"""Whether a change can take effect at all, asked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.adjustment.readback import Goal
from backend.catalog import KnobCatalog
from backend.domain.server import KnobReading
from backend.errors import AdjustmentError, ConflictError
from backend.protocols import TargetDatabase


def restart_needed(
    goals: Sequence[Goal],
    readings: Mapping[str, KnobReading],
    catalog: KnobCatalog,
    target: TargetDatabase,
    *,
    allow_restart: bool,
) -> bool:
    """Check that the goals can take effect; return whether that needs a restart.

    Raises:
        AdjustmentError: something wins over our entry, or a restart is needed and not allowed.
        ConflictError: a restart would activate what somebody else has changed.
    """
    for goal in goals:
        reading = readings[goal.name]
        if not reading.may_alter:
            raise AdjustmentError(
                f"our role may not set {goal.name}",
                remedy="run.py grants prints the SQL for each knob that is tried; for another one: "
                f"GRANT ALTER SYSTEM ON PARAMETER {goal.name} (version 15 on)",
            )
        if reading.override is not None and goal.value is not None:  # our entry may always go
            raise AdjustmentError(
                f"{goal.name} is set by {reading.override}, which wins over our entry",
                remedy="remove that setting, or leave this knob out",
            )
        if reading.pending_restart:
            raise ConflictError(
                f"{goal.name} already waits for a restart with a value that is not ours",
                remedy="restart the server, or take that change back",
            )
    restart_knobs = [entry.name for entry in catalog if entry.knob.context == "restart"]
    needing = [goal.name for goal in goals if goal.name in restart_knobs]
    if not needing:
        return False
    if not allow_restart:
        raise AdjustmentError(
            f"{', '.join(needing)}: takes effect at a restart only, which is not allowed here",
            remedy="allow restarts, or leave these knobs out",
        )
    waiting = [n for n, r in target.read_knobs(restart_knobs).items() if r.pending_restart]
    if waiting:
        raise ConflictError(
            f"a restart would also activate {', '.join(waiting)}, which somebody else changed",
            remedy="restart the server yourself, or take that change back",
        )
    return True
