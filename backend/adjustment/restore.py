"""Putting back what stood before changes that the journal holds open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backend.adjustment.epoch import EpochGuard
from backend.adjustment.intent import row_id
from backend.adjustment.readback import Goal, Readback
from backend.catalog import never_reason
from backend.catalog.entries import same_entry, same_value, writable_entry
from backend.domain.knobs import Knob, KnobValue
from backend.domain.modes import ChangeState
from backend.domain.records import ChangeRecord
from backend.domain.server import KnobReading
from backend.errors import AutopilotError, ServerConnectionError
from backend.lease import LEASE_TTL_S, RESTART_LEASE_S
from backend.protocols import Journal, TargetDatabase

RESTORE_TIMEOUT_S = 5.0
"""How long to wait until what stood before is read back."""


@dataclass(frozen=True)
class ReconcileResult:
    """What became of changes that were to be undone.

    ``conflicts`` were changed by somebody else meanwhile and stay so; ``unsettled`` could not be
    undone yet and remain open in the journal, for the reasons in ``problems``. ``left_behind`` were
    made on another server than the one that answers now, ``taken_up`` on this one, which is back.
    """

    rolled_back: tuple[ChangeRecord, ...] = ()
    conflicts: tuple[ChangeRecord, ...] = ()
    unsettled: tuple[ChangeRecord, ...] = ()
    problems: tuple[str, ...] = ()
    restarted: bool = False
    left_behind: tuple[ChangeRecord, ...] = ()
    taken_up: tuple[ChangeRecord, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing remains open."""
        return not self.unsettled

    def __add__(self, other: ReconcileResult) -> ReconcileResult:
        """Both results as one."""
        return ReconcileResult(
            self.rolled_back + other.rolled_back,
            self.conflicts + other.conflicts,
            self.unsettled + other.unsettled,
            self.problems + other.problems,
            self.restarted or other.restarted,
            self.left_behind + other.left_behind,
            self.taken_up + other.taken_up,
        )


@dataclass
class _Plan:
    """The open changes by knob, sorted by what is to be done."""

    goals: dict[str, Goal] = field(default_factory=dict)
    write: dict[str, KnobValue | None] = field(default_factory=dict)
    standing: set[str] = field(default_factory=set)
    conflicts: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    restart: list[str] = field(default_factory=list)


class Restorer:
    """Undoes open changes.

    Args:
        target: the server.
        journal: where the outcome is written.
        readback: verifies.
        knob_of: a knob's definition by its name, None where it is not catalogued (any more).
        guard: asked before anything is written.
    """

    def __init__(
        self,
        target: TargetDatabase,
        journal: Journal,
        readback: Readback,
        knob_of: Callable[[str], Knob | None],
        guard: EpochGuard,
    ) -> None:
        self._target = target
        self._journal = journal
        self._readback = readback
        self._knob_of = knob_of
        self._guard = guard

    def restore(
        self,
        rows: Sequence[ChangeRecord],
        epoch: int,
        state: ChangeState,
        reason: str,
        *,
        after_failure: bool = False,
    ) -> ReconcileResult:
        """Put back, per knob, what stood before the oldest of these open changes.

        An entry that is none of ours (neither an ``after`` nor a ``before`` of these rows) is
        somebody else's and stays. Changes end in ``state``, or in CONFLICT. With
        ``after_failure`` entries are written even where they seem to stand, and a missing one
        counts as our doing: the recovery of a server that did not start takes entries out.

        Raises:
            StaleEpochError: we may not act any more; nothing more was touched.
            ServerConnectionError: the server is gone; what is not verified stays open.
        """
        self._guard.check(epoch)
        if not rows:
            return ReconcileResult()
        by_knob: dict[str, list[ChangeRecord]] = {}
        for row in sorted(rows, key=row_id):
            by_knob.setdefault(row.knob, []).append(row)
        result = ReconcileResult()
        for name, own in by_knob.items():
            chain = self._unbroken(own)
            result += self._give_up(own[: -len(chain)], chain[0])
            by_knob[name] = chain
        readings = self._target.read_knobs(list(by_knob))
        plan = self._plan(by_knob, readings, after_failure)
        problems = self._write(plan, epoch)
        if plan.goals:
            self._target.reload()
        problems.update(self._restart(plan, epoch))
        problems.update(self._verify(plan, by_knob, problems))
        return result + self._settle(by_knob, plan, problems, epoch, state, reason)

    def _unbroken(self, rows: list[ChangeRecord]) -> list[ChangeRecord]:
        """Return the newest of these changes of one knob that build upon each other.

        Where a change found something else than its forerunner had left or found, somebody else
        had set it in between: what that one set is what has to stand again.
        """
        knob = self._knob_of(rows[0].knob)
        start = len(rows) - 1
        while start > 0:
            found, forerunner = rows[start].before_entry, rows[start - 1]
            if not same_entry(knob, found, forerunner.after_entry) and not same_entry(
                knob, found, forerunner.before_entry
            ):
                break
            start -= 1
        return rows[start:]

    def _give_up(self, rows: Sequence[ChangeRecord], later: ChangeRecord) -> ReconcileResult:
        detail = f"{later.knob} was set to {later.before_entry!r} by somebody else after this"
        self._journal.settle_changes([row_id(r) for r in rows], ChangeState.CONFLICT, detail)
        return ReconcileResult(conflicts=_as(rows, ChangeState.CONFLICT))

    def _plan(
        self,
        by_knob: Mapping[str, list[ChangeRecord]],
        readings: Mapping[str, KnobReading],
        after_failure: bool,
    ) -> _Plan:
        plan = _Plan()
        for name, rows in by_knob.items():
            knob, reading, first = self._knob_of(name), readings.get(name), rows[0]
            if reading is None:
                plan.gone[name] = f"the server has no knob {name} any more"
                continue
            never = never_reason(name)
            if never is not None:  # a record that is none of ours
                plan.gone[name] = f"{name} is never changed here: {never}"
                continue
            stands = same_entry(knob, reading.entry, first.before_entry)
            ours = [r.after_entry for r in rows] + [r.before_entry for r in rows[1:]]
            if after_failure:
                ours.append(None)
            if not stands and not any(same_entry(knob, reading.entry, own) for own in ours):
                shown = "without an entry" if reading.entry is None else f"{reading.entry!r}"
                plan.conflicts[name] = f"{name} is now {shown}: somebody else's; it stays"
                continue
            plan.goals[name] = Goal(name, first.before_entry, first.before_value)
            if stands:
                plan.standing.add(name)
            if not stands or after_failure or _in_effect(rows, reading):
                plan.write[name] = writable_entry(knob, first.before_entry)
            if knob is not None and knob.context == "restart" and _acts(knob, rows, reading):
                plan.restart.append(name)
        return plan

    def _write(self, plan: _Plan, epoch: int) -> dict[str, str]:
        """Write the entries; where that fails as a whole, one by one. Returns name → problem."""
        if not plan.write:
            return {}
        self._guard.check(epoch)
        try:
            self._target.write_entries(plan.write)
            return {}
        except ServerConnectionError:
            raise
        except AutopilotError:
            problems = {}
        for name, value in plan.write.items():
            try:
                self._target.write_entries({name: value})
            except ServerConnectionError:
                raise
            except AutopilotError as error:
                # A knob that the server refused before, and that stands, needs no writing.
                if name not in plan.standing:
                    problems[name] = error.message
        return problems

    def _restart(self, plan: _Plan, epoch: int) -> Mapping[str, str]:
        """Restart where a value of ours is in effect until then; return name → problem."""
        if not plan.restart:
            return {}
        self._guard.hold(epoch, RESTART_LEASE_S)
        try:
            self._target.restart()
        except ServerConnectionError:
            raise
        except AutopilotError as error:
            return {name: f"{name} needs a restart: {error.message}" for name in plan.restart}
        finally:
            self._guard.hold(epoch, LEASE_TTL_S)
        return {}

    def _verify(
        self,
        plan: _Plan,
        by_knob: Mapping[str, list[ChangeRecord]],
        problems: Mapping[str, str],
    ) -> Mapping[str, str]:
        """Wait until the values from before are in effect; return name → problem.

        The entry must be back. A value that differs although the entry is back, and that is not
        one of ours, comes from a file that somebody else edited: no problem of ours.
        """
        goals = [goal for name, goal in plan.goals.items() if name not in problems]
        if not goals:
            return {}
        unmet = self._readback.wait_for(goals, RESTORE_TIMEOUT_S)
        if not unmet:
            return {}
        readings = self._target.read_knobs(list(unmet))
        return {
            name: why
            for name, why in unmet.items()
            if name not in readings
            or not same_entry(self._knob_of(name), plan.goals[name].entry, readings[name].entry)
            or _in_effect(by_knob[name], readings[name])
        }

    def _settle(
        self,
        by_knob: Mapping[str, list[ChangeRecord]],
        plan: _Plan,
        problems: Mapping[str, str],
        epoch: int,
        state: ChangeState,
        reason: str,
    ) -> ReconcileResult:
        self._guard.check(epoch)
        result = ReconcileResult(problems=tuple(problems.values()), restarted=bool(plan.restart))
        undone = [r for n in plan.goals if n not in problems for r in by_knob[n]]
        self._journal.settle_changes([row_id(r) for r in undone], state, reason)
        result += ReconcileResult(rolled_back=_as(undone, state))
        for names, end in ((plan.conflicts, ChangeState.CONFLICT), (plan.gone, ChangeState.FAILED)):
            for name, detail in names.items():
                rows = by_knob[name]
                self._journal.settle_changes([row_id(r) for r in rows], end, detail)
                ended = _as(rows, end)
                result += (
                    ReconcileResult(conflicts=ended)
                    if end is ChangeState.CONFLICT
                    else ReconcileResult(rolled_back=ended)
                )
        left = tuple(r for name in problems for r in by_knob[name])
        return result + ReconcileResult(unsettled=left)


def _in_effect(rows: Sequence[ChangeRecord], reading: KnobReading) -> bool:
    """Whether the value in effect is one that these changes made, and not the one before."""
    return not same_value(reading.value, rows[0].before_value) and any(
        same_value(reading.value, row.after_value) for row in rows
    )


def _acts(knob: Knob, rows: Sequence[ChangeRecord], reading: KnobReading) -> bool:
    """Like `_in_effect`, where the server may show a value of its own choice for ours."""
    chosen = any(
        row.after_value is None or any(same_value(row.after_value, s) for s in knob.special)
        for row in rows
    )
    return not same_value(reading.value, rows[0].before_value) and (
        chosen or _in_effect(rows, reading)
    )


def _as(rows: Sequence[ChangeRecord], state: ChangeState) -> tuple[ChangeRecord, ...]:
    return tuple(replace(row, state=state) for row in rows)
