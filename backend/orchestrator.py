"""SystemOrchestrator: wires the tuner and owns its jobs.

What the jobs do is here, how they are repeated is in jobs.py. A job that fails is recorded as an
event and shows on the page.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from backend.components import Components, TargetFactory, build_components
from backend.config import Settings, load_settings
from backend.domain.clock import SystemClock
from backend.domain.modes import Phase, SafetyAction
from backend.domain.records import EventRecord, StatusRecord
from backend.errors import (
    AutopilotError,
    LockNotAvailableError,
    OtherServerError,
    ServerConnectionError,
    StaleEpochError,
)
from backend.jobs import Jobs
from backend.protocols import Clock
from backend.report import build_report, workload_facts, write_reports
from backend.run_options import RunOptions
from backend.run_parts import TunerRun, build_run
from backend.status import knob_statuses, status_record
from backend.steering.turns import ExplorationTurns
from backend.tuning_loop import TuningLoop

log = logging.getLogger(__name__)

TICK_S = 0.25
STATUS_S = 1.0
SIGN_OF_LIFE = timedelta(seconds=3)
KNOBS_S = 15.0
EXPLORE_S = 0.5
SERVE_S = 2.0
TAKE_IN_S = 10.0
LEARN_S = 2.0
RETENTION_S = 3600.0
UNDO_AGAIN_S = 5.0
"""Between two attempts to undo what could not be undone."""


class SystemOrchestrator:
    """The tuner as a library object.

    Args:
        config: path of a settings file, or settings.
        options: of the run, when the supervisor starts it.
        target_factory: makes the target; default: PostgreSQL as the settings say.
        clock: time.

    Example:
        >>> orchestrator = SystemOrchestrator("config.yaml")        # doctest: +SKIP
        >>> orchestrator.initialize_components()                    # doctest: +SKIP
        >>> orchestrator.start(duration_days=1, fast_mode=True)     # doctest: +SKIP
    """

    def __init__(
        self,
        config: str | Path | Settings | None = None,
        *,
        options: RunOptions | None = None,
        target_factory: TargetFactory | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = config if isinstance(config, Settings) else load_settings(config)
        self._options = options or RunOptions()
        self._target_factory = target_factory
        self._clock = clock or SystemClock()
        self._stop = threading.Event()
        self._parts: Components | None = None
        self._run: TunerRun | None = None
        self._turns = ExplorationTurns(self.settings.steering.share, self._clock)
        self._server_lost = False
        self._last_status: StatusRecord | None = None
        self._fault = ""
        self._undo_due_s = -math.inf
        self._jobs = Jobs(lambda fault: self._event("error", "job_failed", fault))
        self._started_at = self._clock.now()
        self.exit_code = 0

    # -- life -----------------------------------------------------------------------------------

    def initialize_components(self) -> None:
        """Connect, take the one-tuner lock and the lease, reconcile the journal, load the agent.

        Raises:
            ServerConnectionError, PrivilegeError, StoreError: with the remedy.
            LockNotAvailableError: another tuner acts on this server.
        """
        self._parts = build_components(self.settings, self._clock, self._target_factory)

    def start(
        self,
        duration_days: float | None = None,
        fast_mode: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        """Tune until the duration is over or :meth:`stop` is called; then clean up.

        Args:
            duration_days: simulated days; None runs until stopped. A bounded run ends with the
                interleaved comparison of the final with the initial configuration, in
                final_report.txt, .json and .html in the data folder.
            fast_mode: days pass 100 times as fast (windows stay real seconds).
            stop: an event to end by, in place of :meth:`stop`.
        """
        if stop is not None:
            self._stop = stop
        self.begin(duration_days, fast_mode)
        for job, seconds in (
            (self.tune, TICK_S),
            (self.observe, self.settings.telemetry.collection_interval),
            (self.save_status, STATUS_S),
            (self.save_knobs, KNOBS_S),
        ):
            self._jobs.repeat(job, seconds)
        self._jobs.repeat(self.retain, RETENTION_S, worker="store")
        run = self._running
        self._jobs.repeat(run.policies.learn, LEARN_S, worker="learner")
        if run.vetting is not None:
            self._jobs.repeat(run.vetting.check, LEARN_S, worker="learner")
        self._jobs.repeat(run.steering.explore, EXPLORE_S, worker="explorer")
        self._jobs.repeat(run.steering.serve, SERVE_S, worker="service")
        self._jobs.repeat(run.steering.take_in, TAKE_IN_S, worker="store")
        self._jobs.start()
        try:
            self._stop.wait()
        finally:
            run.steering.stop()
            self._jobs.shut_down()
            self.end()

    def begin(self, duration_days: float | None = None, fast_mode: bool = False) -> None:
        """Make everything ready for the jobs, without a scheduler; see :meth:`start`."""
        if self._parts is None:
            self.initialize_components()
        parts = self._components
        self._options = replace(self._options, duration_days=duration_days, fast_mode=fast_mode)
        begun_at = self._options.begun_at
        if begun_at is not None:
            self._started_at = datetime.fromtimestamp(begun_at, timezone.utc)
        if self._options.from_defaults and parts.deployment.is_first_version:
            parts.deployment.reset("demo")
        self._tell_loading(parts)
        parts.learner.load(parts.deployment.present)
        self._run = build_run(
            parts, self._options, self._started_at, self._turns, self._clock, self._stop
        )
        self._go_on(parts, self._run.loop)
        self.save_knobs()

    def stop(self) -> None:
        """Ask the run to end; safe from any thread and from a signal handler."""
        self._stop.set()

    def end(self) -> None:
        """Take a candidate off the server, release lock and lease. The last call."""
        parts = self._components
        try:
            if self._run is not None:
                self._run.loop.interrupt("the tuner was stopped")
        except AutopilotError as error:
            log.error("a trial could not be undone at the end: %s", error)
        try:
            self.save_status()
            if self._run is not None:
                self._run.close()
        finally:
            parts.close()

    @property
    def loop(self) -> TuningLoop:
        """The tuning loop; there is one after :meth:`begin`."""
        return self._running.loop

    @property
    def _running(self) -> TunerRun:
        if self._run is None:
            raise AutopilotError("call begin() or start() first")
        return self._run

    @property
    def _components(self) -> Components:
        if self._parts is None:
            raise AutopilotError("call initialize_components() first")
        return self._parts

    def _tell_loading(self, parts: Components) -> None:
        """A sign of life before the agent is loaded, which takes some seconds."""
        last = parts.store.status()
        base = last or StatusRecord(self._clock.now(), parts.deployment.mode, Phase.STARTING)
        activity = "loading the knob agent"
        parts.store.save_status(
            replace(base, at=self._clock.now(), activity=activity, progress=None)
        )

    def _go_on(self, parts: Components, loop: TuningLoop) -> None:
        """Take over from a tuner that ended: its switches stand.

        The mode chosen on the page stands for the run; pause and freeze until they are lifted.
        """
        last = parts.store.status()
        if last is not None:
            loop.paused, parts.deployment.frozen = last.paused, last.frozen
            if last.started_at == self._started_at:
                parts.deployment.mode = parts.info.mode_for(last.mode)

    # -- jobs -----------------------------------------------------------------------------------

    def tune(self) -> None:
        """Keep the lease, carry out operators' commands, advance the trial."""
        parts, loop = self._components, self.loop
        try:
            if not parts.lease.renew():
                raise StaleEpochError("the watchdog ended this tuner's epoch")
            if not parts.target.hold_tuner_lock():
                raise LockNotAvailableError("another tuner holds this server's lock")
            if self._server_lost:
                self._reconnect(parts)
            self._running.commands.run_next()
            if loop.trial is None and not self._nothing_left_open(parts):
                return
            safety = self._running.observer.safety
            loop.blocked = safety.reasons if safety.action is not SafetyAction.ALLOW else ()
            self._turns.advance_tuner(self._tick)
            if loop.phase is Phase.FINISHED and not self._stop.is_set():
                self._finish()
        except (StaleEpochError, LockNotAvailableError, OtherServerError) as error:
            self._lost_right(error)
        except ServerConnectionError as error:
            self._lost_server(error)

    def _tick(self, may_begin: bool) -> bool:
        """Let the loop act; whether a trial runs now."""
        self.loop.resting = not may_begin
        self._running.injected.tick()
        self.loop.tick()
        return self.loop.trial is not None

    def observe(self) -> None:
        """Measure a window of the deployed configuration where no trial measures."""
        if self._server_lost:
            return
        try:
            self._running.observer.observe()
        except ServerConnectionError as error:
            self._lost_server(error)

    def save_status(self) -> None:
        """Store the state that the pages' head shows."""
        parts = self._components
        if self._run is None:
            return
        loop = self._run.loop
        end = None
        if self._options.duration_s is not None:
            end = self._started_at + timedelta(seconds=self._options.duration_s)
        now = self._clock.now()
        status = status_record(
            now,
            parts,
            loop,
            self._running.observer.safety,
            workload=self.settings.workload.name if self.settings.is_embedded else "",
            fast_mode=self._options.fast_mode,
            started_at=self._started_at,
            ends_at=end,
            fault=self._fault or self._jobs.fault,
        )
        # Unchanged, it is only a sign of life; each write is a sync of the disk.
        last = self._last_status
        unchanged = last is not None and replace(status, at=last.at) == last
        if last is None or not unchanged or now - last.at >= SIGN_OF_LIFE:
            parts.store.save_status(status)
            self._last_status = status

    def save_knobs(self) -> None:
        """Store the knobs' present values."""
        parts = self._components
        loop = self._run.loop if self._run is not None else None
        try:
            # While a candidate stands, the server's values are not the deployed ones.
            if loop is None or loop.trial is None:
                parts.deployment.refresh()
            parts.store.save_knob_statuses(knob_statuses(parts))
        except ServerConnectionError as error:
            self._lost_server(error)

    def retain(self) -> None:
        """Average what is old and delete what is older."""
        telemetry = self.settings.telemetry
        self._components.store.prune(
            self._clock.now(), telemetry.retention_days, telemetry.aggregation_interval
        )

    # -- trouble --------------------------------------------------------------------------------

    def _lost_server(self, error: ServerConnectionError) -> None:
        first, self._server_lost = not self._server_lost, True
        self._running.observer.forget()
        self._fault = f"the server does not answer: {error.message}"
        self.loop.lost_server(self._fault)
        if first:
            self._event("error", "server_lost", self._fault)

    def _reconnect(self, parts: Components) -> None:
        """The journal is reconciled before anything else happens on a new connection."""
        parts.target.describe()
        parts.deployment.undo_left_open()
        parts.deployment.refresh()
        self._server_lost = False
        self._fault = ""
        self._event("info", "server_back", "the server answers again; the journal was reconciled")

    def _nothing_left_open(self, parts: Components) -> bool:
        """Undo what could not be undone when its trial ended: nothing new is tried on top of it."""
        if not parts.info.can("alter_system"):
            return True
        now_s = self._clock.monotonic_s()
        if now_s < self._undo_due_s:
            return False
        result = parts.deployment.undo_left_open()
        if result is None:
            return True
        undone = ", ".join(sorted({row.knob for row in result.rolled_back}))
        if result.clean:
            self._undo_due_s, self._fault = -math.inf, ""
            self._event("warning", "undone_late", f"what was left open is undone now: {undone}")
            return True
        self._undo_due_s = now_s + UNDO_AGAIN_S
        fault = f"not undone yet: {'; '.join(result.problems)}"
        if fault != self._fault:
            self._fault = fault
            self._event("error", "not_undone", fault)
        return False

    def _lost_right(self, error: AutopilotError) -> None:
        """We may not act any more: end, so that the supervisor starts a fresh tuner."""
        self.exit_code = 3
        self._stop.set()
        self._fault = error.message
        self._event("error", "lost_right", error.message)
        if self._run is not None:
            self._run.loop.lost_server(error.message)

    # -- the end of a bounded run ---------------------------------------------------------------

    def _finish(self) -> None:
        self._stop.set()  # whatever comes of the report: without it the run would never end
        self.save_status()
        facts = workload_facts(self.settings, self._options)
        report = build_report(self._components.store, workload=facts)
        for path in write_reports(report, Path(self.settings.paths.data_dir)):
            log.info("wrote %s", path)
        self._event("info", "finished", "the run is over; the final report is written")

    def _event(self, level: str, kind: str, message: str) -> None:
        self._components.store.add_event(EventRecord(self._clock.now(), level, kind, message))
