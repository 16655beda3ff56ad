"""Carries out what operators ask for on the page or the command line.

A refusal is an answer: the command's record says why, and nothing else happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backend.catalog import refuse_if_never
from backend.components import Components
from backend.control_commands import ControlCommands
from backend.domain.knobs import KnobValue
from backend.domain.modes import CommandKind, CommandState, Mode
from backend.domain.records import CommandRecord, EventRecord
from backend.errors import AutopilotError, ConfigError, KnobError, ServerConnectionError
from backend.protocols import Clock
from backend.status import knob_statuses
from backend.tuning_loop import TuningLoop


class OperatorCommands:
    """Takes commands from the store's queue, one a tick.

    Args:
        parts, loop, clock: the tuner's.
        steer: carries out STEER, told its payload and who asks.
    """

    def __init__(
        self,
        parts: Components,
        loop: TuningLoop,
        clock: Clock,
        steer: Callable[[Mapping[str, object], str], str],
    ) -> None:
        self._parts, self._loop, self._clock = parts, loop, clock
        self._control = ControlCommands(parts, loop, clock)
        self._handlers: dict[CommandKind, Callable[[CommandRecord], str]] = {
            CommandKind.SET_KNOBS: self._set_knobs,
            CommandKind.ROLL_BACK: self._roll_back,
            CommandKind.DEPLOY_VERSION: self._deploy_version,
            CommandKind.PAUSE: lambda command: self._pause(True),
            CommandKind.RESUME: lambda command: self._pause(False),
            CommandKind.SET_MODE: self._set_mode,
            **self._control.handlers,
            CommandKind.STEER: lambda command: steer(command.payload, command.actor),
        }
        self._refuse_interrupted()

    def _refuse_interrupted(self) -> None:
        """A command that an earlier tuner died over is answered, never carried out twice."""
        for command in self._parts.store.commands(limit=1000):
            if command.state is CommandState.RUNNING and command.id is not None:
                self._parts.store.finish(
                    command.id,
                    CommandState.REFUSED,
                    "the tuner ended before it was done; what it had begun was undone",
                )

    def run_next(self) -> None:
        """Carry out the oldest queued command, if there is one.

        Raises:
            ServerConnectionError: the server is gone; the command is refused with that reason.
        """
        self._control.follow_freeze()
        command = self._parts.store.take()
        if command is None or command.id is None:
            return
        try:
            result = self._handlers[command.kind](command)
        except AutopilotError as error:
            self._finish(command, CommandState.REFUSED, str(error))
            if isinstance(error, ServerConnectionError):
                raise
        except Exception as error:
            # A defect, or a payload that nobody thought of: answered all the same, then told.
            self._finish(command, CommandState.REFUSED, f"it failed: {error!r:.300}")
            raise
        else:
            self._finish(command, CommandState.DONE, result)

    def _finish(self, command: CommandRecord, state: CommandState, result: str) -> None:
        assert command.id is not None  # checked by the caller
        # First the new values, then "done": who sees the answer sees its effect too.
        self._parts.store.save_knob_statuses(knob_statuses(self._parts))
        self._parts.store.finish(command.id, state, result)
        self._parts.store.add_event(
            EventRecord(
                at=self._clock.now(),
                level="info" if state is CommandState.DONE else "warning",
                kind="command",
                message=f"{command.actor}: {command.kind.value} {state.value}: {result}",
                detail={"command": command.id, "payload": dict(command.payload)},
            )
        )

    # -- the commands -------------------------------------------------------------------------

    def _set_knobs(self, command: CommandRecord) -> str:
        wanted = command.payload.get("knobs")
        if not isinstance(wanted, Mapping) or not wanted:
            raise KnobError("no knob was named", remedy='send {"knobs": {"work_mem": 8192}}')
        parts = self._parts
        values = parts.catalog.check_all(wanted)
        self._may_change(values)
        parts.budget.check(parts.deployment.present.replace(values))
        self._loop.stand_down(f"{command.actor} changes knobs by hand")
        version, batch_id = parts.deployment.deploy(
            values,
            author=command.actor,
            index=self._index(),
            note=f"set by hand: {', '.join(values)}",
        )
        self._changed_by_hand()
        return f"in effect as policy version {version.id} (batch {batch_id})"

    def _roll_back(self, command: CommandRecord) -> str:
        # Rolling back is never refused by mode or freeze switch.
        payload, deployment = command.payload, self._parts.deployment
        reason = f"{command.actor} rolls back"
        if "batch_id" in payload:
            self._loop.stand_down(reason)
            before = deployment.version
            try:
                version = deployment.undo_batch(
                    str(payload["batch_id"]), author=command.actor, index=self._index()
                )
            finally:  # a knob that somebody else holds does not keep the others from going back
                if deployment.version is not before:
                    self._changed_by_hand()
        else:
            wanted = deployment.version_to_return_to(payload.get("version_id"))
            self._loop.stand_down(reason)
            arrival = deployment.go_to(
                wanted, author=command.actor, note=f"rolled back to version {wanted.id}"
            )
            self._changed_by_hand()
            return f"rolled back; {arrival.told}"
        return f"rolled back; now policy version {version.id}"

    def _deploy_version(self, command: CommandRecord) -> str:
        parts, deployment = self._parts, self._parts.deployment
        wanted = deployment.versions.find(command.payload.get("version_id"))
        values = deployment.values_under(wanted)
        self._may_change(values)
        parts.budget.check(deployment.present.replace(values))
        self._loop.stand_down(f"{command.actor} deploys policy version {wanted.id}")
        arrival = deployment.go_to(
            wanted, author=command.actor, note=f"version {wanted.id} deployed by hand"
        )
        self._changed_by_hand()
        return f"deployed; {arrival.told}"

    def _pause(self, paused: bool) -> str:
        if not paused:
            self._loop.resume()
            return "resumed"
        self._loop.paused = True
        self._loop.interrupt("paused by the operator")
        return "paused: nothing new is tried"

    def _set_mode(self, command: CommandRecord) -> str:
        try:
            mode = Mode(command.payload.get("mode"))
        except ValueError:
            raise ConfigError(
                f"mode {command.payload.get('mode')!r:.40} is unknown",
                remedy=f"choose one of {', '.join(m.value for m in Mode)}",
            ) from None
        info = self._parts.info
        if info.mode_for(mode) is not mode:
            raise ConfigError(
                f"mode {mode.value} is not possible here, the furthest is {info.best_mode.value}",
                remedy=info.why_not_further,
            )
        former, self._parts.deployment.mode = self._parts.deployment.mode, mode
        if mode is not former:
            # What runs or waits was begun under other rules: it was not approved, or needs not be.
            self._loop.stand_down(f"mode {mode.value} was chosen")
        return f"mode is now {mode.value}"

    def _may_change(self, values: Mapping[str, KnobValue]) -> None:
        for name in values:  # whatever a catalogue or a stored version holds
            refuse_if_never(name)
        if not self._parts.info.can("alter_system"):
            raise ConfigError(
                "this server does not let us change settings",
                remedy=self._parts.info.missing.get("alter_system"),
            )
        self._parts.deployment.may_act()
        self._control.check_restart(values)

    def _changed_by_hand(self) -> None:
        self._loop.relink()
        self._parts.recorder.forget_recent()

    def _index(self) -> float:
        """The newest proven index goes on; what a human's change does is not proven."""
        return self._loop.chain.factor if self._loop.chain else 1.0
