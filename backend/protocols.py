"""The seams of the system. Implementations: targets/, telemetry/, workload/, rl_agent.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from backend.domain.experiment_plans import ExperimentPlanRecord, PromotionRecord
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.metrics import MetricsSnapshot, QueryKey
from backend.domain.modes import ChangeState, CommandState
from backend.domain.plans import ExplainedPlan, Guess, HintSet
from backend.domain.policies import (
    EvolutionRecord,
    GenomeRecord,
    PolicyUpdateRecord,
    PolicyVersionRecord,
)
from backend.domain.records import (
    ChangeRecord,
    ClientIntervalRecord,
    CommandRecord,
    EventRecord,
    FreezeRecord,
    KnobSpaceRecord,
    KnobStatusRecord,
    KnownWorkloadRecord,
    LearningRecord,
    LeaseRecord,
    QueryClassRecord,
    StatusRecord,
    TransitionRecord,
    TrialRecord,
    WindowRecord,
)
from backend.domain.server import KnobReading, ServerInfo
from backend.domain.steering import (
    ClassKey,
    PlanRunRecord,
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringStatusRecord,
)


@runtime_checkable
class TargetDatabase(Protocol):
    """A database server that can be observed and tuned.

    Every method raises ServerConnectionError when the server cannot be reached, PrivilegeError
    when our role may not do it, and never blocks longer than the configured time-outs.
    """

    def describe(self) -> ServerInfo:
        """Identity, version and capabilities, probed now."""

    def snapshot(self) -> MetricsSnapshot:
        """Read all metrics once. Cheap: a few milliseconds of server time."""

    def query_texts(self, keys: Sequence[QueryKey]) -> Mapping[QueryKey, str]:
        """Normalised texts of query classes (no literals), as far as they are known."""

    def read_knobs(self, names: Sequence[str]) -> Mapping[str, KnobReading]:
        """Effective values, sources and persisted entries; unknown names are left out."""

    def write_entries(self, entries: Mapping[str, KnobValue | None]) -> None:
        """Persist values (native units) without activating them; None removes the entry."""

    def reload(self) -> None:
        """Make persisted values effective where no restart is needed."""

    def restart(self) -> None:
        """Restart the server and wait until it answers.

        Raises:
            UnsupportedServerError: restarts are not allowed here.
            EmbeddedServerError: it did not come back.
        """

    def end_tuner_sessions(self) -> int:
        """End all other sessions of a tuner on this server; how many there were."""

    def hold_tuner_lock(self) -> bool:
        """Take, or verify that we still hold, the one-tuner lock; False: another has it."""

    def close(self) -> None:
        """Release locks and connections. Idempotent."""


class Journal(Protocol):
    """The durable record of intended and made changes, and the lease that guards them."""

    def add_changes(self, changes: Sequence[ChangeRecord]) -> Sequence[ChangeRecord]:
        """Append before acting; returns them with ids. Durable when it returns."""

    def settle_changes(self, ids: Sequence[int], state: ChangeState, detail: str = "") -> None:
        """Record what became of changes, and when."""

    def open_changes(self) -> Sequence[ChangeRecord]:
        """Changes that are PENDING or APPLIED (neither kept nor undone), oldest first."""

    def changes_left_behind(self) -> Sequence[ChangeRecord]:
        """Changes that stand on a server from which another took over, oldest first."""

    def acquire_lease(self, holder: str, ttl_s: float) -> int:
        """Begin an epoch: returns its number, greater than any before."""

    def renew_lease(self, epoch: int, ttl_s: float) -> bool:
        """Heartbeat; False when the epoch is stale (somebody raised it)."""

    def lease(self) -> LeaseRecord | None:
        """The newest lease, None before the first."""

    def current_epoch(self) -> int:
        """The newest epoch, 0 before the first."""

    def lease_expired(self, now: datetime) -> bool:
        """Whether the newest lease has run out (and was not released)."""

    def release_lease(self, epoch: int) -> None:
        """End the epoch in good order."""


class TelemetryWriter(Protocol):
    """What the tuner and the workload record."""

    def add_window(self, window: WindowRecord) -> int: ...
    def add_client_intervals(self, intervals: Sequence[ClientIntervalRecord]) -> None: ...
    def add_query_classes(self, classes: Sequence[QueryClassRecord]) -> None: ...
    def save_trial(self, trial: TrialRecord) -> int:
        """Insert (id None) or update; returns the id."""

    def add_policy_version(self, version: PolicyVersionRecord) -> int:
        """Insert and make it the only active one; returns the id."""

    def add_policy_update(self, record: PolicyUpdateRecord) -> int:
        """Append an attempt to replace a learned policy; returns the id."""

    def add_genome(self, record: GenomeRecord) -> int:
        """Append a measured genome; returns the id."""

    def save_evolution(self, record: EvolutionRecord) -> None:
        """Replace the state of the evolution."""

    def add_event(self, event: EventRecord) -> int: ...
    def add_learning(self, record: LearningRecord) -> None: ...
    def add_knob_space(self, space: KnobSpaceRecord) -> None:
        """Make a space known; nothing happens where it is."""

    def add_transition(self, transition: TransitionRecord) -> int:
        """Append; returns the id. The knob space is known by then."""

    def save_knob_statuses(self, statuses: Sequence[KnobStatusRecord]) -> None:
        """Replace the present knob statuses."""

    def save_status(self, status: StatusRecord) -> None: ...
    def save_known_workloads(self, workloads: Sequence[KnownWorkloadRecord]) -> None:
        """Replace the workloads that the tuner knows."""


class ControlWriter(Protocol):
    """What operators have decided, and what waits for them."""

    def save_experiment_plan(self, plan: ExperimentPlanRecord) -> int:
        """Insert (id None) or update; returns the id."""

    def save_promotion(self, promotion: PromotionRecord) -> int:
        """Insert (id None) or update; returns the id."""

    def save_freeze(self, freeze: FreezeRecord) -> None:
        """Replace the state of the freeze switch."""


class ControlReader(Protocol):
    """What operators have decided, and what waits for them. All lists are oldest first."""

    def experiment_plans(self, *, limit: int = 50) -> Sequence[ExperimentPlanRecord]:
        """The newest experiment plans."""

    def promotions(self, *, limit: int = 50) -> Sequence[PromotionRecord]:
        """The newest promotions that waited for an operator."""

    def freeze(self) -> FreezeRecord | None:
        """The freeze switch as it was thrown last; None: it never was."""


class SteeringWriter(Protocol):
    """What the explorer and the service of its results record."""

    def save_steered_classes(self, classes: Sequence[SteeredClassRecord]) -> None:
        """Insert or replace, by key."""

    def delete_steered_classes(self, keys: Sequence[ClassKey]) -> None:
        """Forget them; unknown keys are fine."""

    def add_plan_runs(self, runs: Sequence[PlanRunRecord]) -> None: ...
    def add_service_timings(self, timings: Sequence[ServiceTimingRecord]) -> None: ...
    def save_steering_status(self, status: SteeringStatusRecord) -> None: ...


class SteeringReader(Protocol):
    """What is known of single queries' plans. All lists are oldest first."""

    def steered_classes(self) -> Sequence[SteeredClassRecord]:
        """All of them, ordered by key."""

    def plan_runs(
        self, *, fingerprint: str | None = None, limit: int = 10_000
    ) -> Sequence[PlanRunRecord]:
        """The newest runs, of one class or of all."""

    def service_timings(
        self, *, since: datetime | None = None, limit: int = 10_000
    ) -> Sequence[ServiceTimingRecord]: ...
    def steering_status(self) -> SteeringStatusRecord | None: ...


class TelemetryReader(SteeringReader, ControlReader, Protocol):
    """What the dashboard and the reports read. All lists are oldest first."""

    def status(self) -> StatusRecord | None: ...
    def windows(
        self, *, since: datetime | None = None, limit: int = 500, trial_id: int | None = None
    ) -> Sequence[WindowRecord]:
        """The newest ``limit`` windows, without their ``queries``."""

    def query_windows(
        self, *, since: datetime | None = None, limit: int = 500
    ) -> Sequence[WindowRecord]:
        """The newest windows with their ``queries``."""

    def query_classes(self) -> Mapping[str, QueryClassRecord]: ...
    def client_intervals(
        self, *, since: datetime | None = None, class_name: str | None = "*", limit: int = 2000
    ) -> Sequence[ClientIntervalRecord]: ...
    def trials(self, *, limit: int = 200) -> Sequence[TrialRecord]: ...
    def trial(self, trial_id: int) -> TrialRecord | None: ...
    def changes(self, *, limit: int = 500) -> Sequence[ChangeRecord]: ...
    def policy_versions(self, *, limit: int = 200) -> Sequence[PolicyVersionRecord]: ...
    def policy_updates(self, *, limit: int = 200) -> Sequence[PolicyUpdateRecord]: ...
    def genomes(
        self, *, study: str | None = None, deployed: bool = False, limit: int = 1000
    ) -> Sequence[GenomeRecord]:
        """The newest measured genomes, of one study or of all; or only those that were deployed."""

    def evolution(self) -> EvolutionRecord | None:
        """The evolution that is at work, or ended last; None before the first."""

    def events(self, *, level: str | None = None, limit: int = 200) -> Sequence[EventRecord]: ...
    def learning(self, *, agent: str = "knob", limit: int = 1000) -> Sequence[LearningRecord]: ...
    def knob_spaces(self) -> Mapping[str, KnobSpaceRecord]:
        """All known knob spaces by their fingerprint."""

    def transitions(
        self, *, workload: str | None = None, limit: int = 100_000
    ) -> Sequence[TransitionRecord]:
        """The newest transitions, of one workload or of all."""

    def knob_statuses(self) -> Sequence[KnobStatusRecord]: ...
    def known_workloads(self) -> Sequence[KnownWorkloadRecord]:
        """The workloads that the tuner knows, the last one seen last."""

    def commands(self, *, limit: int = 100) -> Sequence[CommandRecord]: ...


class CommandQueue(Protocol):
    """Operators' requests on their way from the dashboard or command line to the tuner."""

    def submit(self, command: CommandRecord) -> int:
        """Queue; returns the id."""

    def command(self, command_id: int) -> CommandRecord | None: ...
    def take(self) -> CommandRecord | None:
        """The oldest queued command, marked RUNNING; None where there is none."""

    def finish(self, command_id: int, state: CommandState, result: str) -> None: ...


class Store(
    Journal,
    TelemetryWriter,
    SteeringWriter,
    ControlWriter,
    TelemetryReader,
    CommandQueue,
    Protocol,
):
    """The one thing that ties the processes together."""

    def transaction(self) -> AbstractContextManager[None]:
        """Group writes of one process; all or nothing."""

    def prune(self, now: datetime, retention_days: float, aggregation_interval_s: float) -> int:
        """Downsample and delete what is old; how many rows went."""

    def close(self) -> None: ...


class AskTellAgent(Protocol):
    """A learner that proposes configurations and is told how they did (lower is better)."""

    def ask(self, state: NDArray[np.float64] | None = None) -> KnobConfig: ...
    def tell(
        self,
        config: Mapping[str, KnobValue],
        objective: float,
        state: NDArray[np.float64] | None = None,
        quality: float = 1.0,
        censored: bool = False,
    ) -> None: ...


class PlanGuesser(Protocol):
    """A learner that guesses hint sets for statements; see ``query_optimizer.PlanAgent``.

    ``plan_of`` answers a hint set with its plan, None where the planner gave up.
    """

    def first_guess(
        self, query_class: str, plan_of: Callable[[HintSet], ExplainedPlan | None]
    ) -> Sequence[Guess]:
        """Ranked, the best first; nothing is run."""

    def tell(
        self,
        query_class: str,
        hint_set: HintSet,
        log_ratio: float,
        plan_of: Callable[[HintSet], ExplainedPlan | None],
        *,
        timed_out: bool = False,
    ) -> None:
        """Learn of a run: ln(latency / default latency), a lower bound where it timed out."""


class Clock(Protocol):
    """Time, injectable for tests.

    ``monotonic_s`` never goes back; ``now`` is aware, UTC; ``sleep`` waits so many seconds.
    """

    def monotonic_s(self) -> float: ...
    def now(self) -> datetime: ...
    def sleep(self, seconds: float) -> None: ...
