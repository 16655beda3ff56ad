"""What the tuner's jobs do for single queries' plans: explore in turns, serve all the time.

Each job runs in a thread of its own: a statement on trial may take its time-out, and the steering
table must be written again before it expires.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from backend.components import Components
from backend.config import Settings
from backend.domain.modes import Mode, Phase, SafetyAction
from backend.domain.records import EventRecord
from backend.domain.safety import SafetyVerdict
from backend.domain.steering import SteeringStatusRecord
from backend.errors import AutopilotError, ServerConnectionError, ServerError
from backend.observer import Observer
from backend.policy.plan_policy import PlanPolicy
from backend.protocols import Clock, Store
from backend.steering.places import SteeringPlaces
from backend.steering.refusals import said
from backend.steering.serving.service import SteeringService
from backend.steering.statements.intake import StatementIntake
from backend.steering.turns import ExplorationTurns
from backend.steering_parts import Explorer, build_explorer, explores
from backend.targets.postgresql import PostgresTarget
from backend.tuning_loop import TuningLoop

log = logging.getLogger(__name__)

SIGN_OF_LIFE = timedelta(seconds=10)
RETRY_S = 30.0
"""After the explorer's server failed."""
_BUSY_PHASES = {
    Phase.STARTING: "the tuner is starting",
    Phase.BASELINE: "the baseline is measured",
    Phase.FINAL_COMPARISON: "the final comparison is made",
    Phase.FINISHED: "the run is over",
}


class SteeringJobs:
    """See the module's text.

    Args:
        settings: section steering.
        store: events and the explorer's state go there.
        clock: time.
        loop: the tuning loop, which the explorer takes turns with.
        mode: the mode in force; ``frozen``: whether the freeze switch is on.
        safety: the safety monitor's newest verdict.
        host_cpu_percent: of the newest window in which nothing was on trial; None: not known.
        turns: shared with the tuner's thread.
        service: serves and withdraws hint sets.
        intake: where statements come from; None where nothing is explored.
        explorer: None where nothing is explored.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock,
        loop: TuningLoop,
        *,
        mode: Callable[[], Mode],
        frozen: Callable[[], bool],
        safety: Callable[[], SafetyVerdict],
        host_cpu_percent: Callable[[], float | None],
        turns: ExplorationTurns,
        service: SteeringService,
        intake: StatementIntake | None = None,
        explorer: Explorer | None = None,
    ) -> None:
        self._settings, self._store, self._clock, self._loop = settings, store, clock, loop
        self._mode, self._frozen, self._safety = mode, frozen, safety
        self._host_cpu_percent = host_cpu_percent
        self._turns, self._service = turns, service
        self._intake, self._explorer = intake, explorer
        self._began_s = clock.monotonic_s()
        self._retry_s = self._began_s
        self._fault = ""
        self._stopping = False
        self._status: SteeringStatusRecord | None = None

    # -- the jobs -----------------------------------------------------------------------------

    def explore(self) -> None:
        """Try statements while the explorer has its turn; then learn from what came out."""
        explorer, tried = self._explorer, False
        if explorer is None:
            return
        try:
            while self._may_explore() and self._turns.claim():
                tried = True
                if not self._step(explorer):
                    break
            if tried:  # inside the turn: learning takes the machine's time too
                explorer.learner.learn()
        finally:
            self._turns.end()

    def serve(self) -> None:
        """Take what applications report, judge it, write the steering table and our state."""
        self._service.tick()
        self._save_status()

    def take_in(self) -> None:
        """Take in statements; reading logs may take a while."""
        if self._intake is not None:
            self._intake.take()

    def steer(self, payload: Mapping[str, object], actor: str = "operator") -> str:
        """An operator's command STEER; the answer is for people.

        Raises:
            SteeringError: with the remedy.
        """
        return self._service.set_mode(payload, actor)

    def stop(self) -> None:
        """Have the explorer end its turn soon; safe from any thread."""
        self._stopping = True
        if self._explorer is not None:
            self._explorer.cancel()

    def close(self) -> None:
        """Stop steering and end the explorer's sessions. The last call."""
        self._service.close()
        if self._explorer is not None:
            self._explorer.close()

    # -- inside -------------------------------------------------------------------------------

    def _may_explore(self) -> bool:
        return self._clock.monotonic_s() >= self._retry_s and not self._hindrance()

    def _step(self, explorer: Explorer) -> bool:
        """Have the explorer make a step; whether another one is worth making now."""
        before_s = explorer.exploration.spent_s
        try:
            went_on = explorer.exploration.step()
        except ServerConnectionError as error:
            self._stumbled(error.message)
            return False
        except ServerError as error:
            self._stumbled(said(error))  # its words may repeat literals
            return False
        finally:
            self._turns.spend(explorer.exploration.spent_s - before_s)
        self._fault = ""
        return went_on

    def _hindrance(self) -> str:
        """Why nothing is tried now, but for a server that failed; "" for nothing."""
        loop, limit = self._loop, self._settings.steering.cpu_limit_percent
        if self._stopping:
            return "the tuner is stopping"
        if loop.paused or self._frozen():
            return "paused or frozen"
        if self._mode() is Mode.OBSERVE and self._settings.steering.explore is None:
            return "in mode observe nothing is tried, unless steering.explore is true"
        if not self._settings.schedule.trial_hours.is_open(self._clock.now()):
            return "outside the hours of trials (schedule.trials)"
        if loop.phase in _BUSY_PHASES:
            return _BUSY_PHASES[loop.phase]
        if loop.workloads.away:
            return "the baseline of another workload is measured"
        verdict = self._safety()
        if verdict.action is not SafetyAction.ALLOW:
            return "; ".join(verdict.reasons) or "the safety monitor holds everything up"
        cpu_percent = self._host_cpu_percent()
        if cpu_percent is not None and cpu_percent > limit:
            return f"the host's CPU use is {cpu_percent:.0f} % (limit {limit:g} %)"
        return ""

    def _activity(self) -> str:
        if self._explorer is None:
            return ""
        if self._turns.exploring:
            return self._explorer.exploration.activity
        if self._loop.trial is not None:
            return "waits for the tuner's trial to end"
        return "waits until its share of the time allows more"

    @property
    def _why_off(self) -> str:
        """Why nothing is ever tried here."""
        if explores(self._settings):
            return "this server runs no statements"  # a simulated one
        if self._settings.steering.explore is None:
            return "a server of your own is explored when steering.explore is true"
        return "steering.explore is false"

    def _stumbled(self, why: str) -> None:
        """Nothing is tried for a while; told once until a step goes well again."""
        self._retry_s = self._clock.monotonic_s() + RETRY_S
        if not self._fault:
            self._event("warning", "exploration", f"nothing is explored: {why}")
        self._fault = why

    def _save_status(self) -> None:
        explorer, now = self._explorer, self._clock.now()
        status = SteeringStatusRecord(
            at=now,
            enabled=explorer is not None,
            hindrance=self._why_off if explorer is None else self._hindrance() or self._fault,
            activity=self._activity(),
            share=self._settings.steering.share,
            spent_s=round(explorer.exploration.spent_s, 1) if explorer is not None else 0.0,
            elapsed_s=round(self._clock.monotonic_s() - self._began_s, 1),
            where="the server of steering.dsn" if self._settings.steering.dsn else "primary",
            role=str(explorer.url.username or "") if explorer is not None else "",
            served=self._service.served,
        )
        last = self._status
        unchanged = (
            last is not None and replace(status, at=last.at, elapsed_s=last.elapsed_s) == last
        )
        if last is None or not unchanged or now - last.at >= SIGN_OF_LIFE:
            self._store.save_steering_status(status)
            self._status = status

    def _event(self, level: str, kind: str, message: str) -> None:
        try:
            self._store.add_event(EventRecord(self._clock.now(), level, kind, message))
        except AutopilotError as error:
            log.warning("the event could not be stored: %s", error.message)


def build_steering_jobs(
    parts: Components,
    loop: TuningLoop,
    observer: Observer,
    turns: ExplorationTurns,
    clock: Clock,
    plan_policy: Callable[[], PlanPolicy | None],
) -> SteeringJobs:
    """Wire query steering for the tuner's server; a simulated one runs no statements.

    Raises:
        StoreError: the store cannot be read or written.
    """
    settings, deployment = parts.settings, parts.deployment
    register = parts.register
    places = SteeringPlaces(settings.paths.steering_dir)
    explorer = None
    if explores(settings) and isinstance(parts.target, PostgresTarget):
        explorer = build_explorer(
            settings, parts.info, parts.store, register, clock, plan_policy, parts.genome.genome
        )
    return SteeringJobs(
        settings,
        parts.store,
        clock,
        loop,
        mode=lambda: deployment.mode,
        frozen=lambda: deployment.frozen,
        safety=lambda: observer.safety,
        host_cpu_percent=lambda: observer.host_cpu_percent,
        turns=turns,
        service=SteeringService(
            register,
            places,
            parts.store,
            clock,
            mode=lambda: deployment.mode,
            frozen=lambda: deployment.frozen,
            min_gain=settings.steering.min_gain,
        ),
        intake=None
        if explorer is None
        else StatementIntake(
            settings.steering,
            places,
            explorer.book,
            register,
            parts.store,
            clock,
            settings.database.dbname,
        ),
        explorer=explorer,
    )
