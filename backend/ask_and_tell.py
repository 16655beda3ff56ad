"""What is proposed for a trial, by the knob agent and by Level 1, and what the agent is told."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from backend.deployment import Deployment
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.metrics import MetricsWindow
from backend.domain.modes import LEVEL_1, Arm, Verdict
from backend.errors import MemoryBudgetError
from backend.guidance import Policy, no_policy
from backend.learning import Learner
from backend.permission import Permission
from backend.trials import Trial

log = logging.getLogger(__name__)

State = NDArray[np.float64] | None
MAX_ASKS = 12
"""Proposals asked for in a row; those that change nothing or take too much memory are dropped."""
MAX_STOPPED_LOG_RATIO = math.log(4.0)
"""A configuration that the safety monitor stopped is told to the agent as at most so much worse."""


class AskAndTell:
    """Asks the agent what to try, in terms of what stands, and tells it what came of it.

    Args:
        learner: the agent.
        deployment: what stands.
        space: the knobs that may be tried.
        rollback_threshold: share of a regression at which the safety monitor stops a trial.
        permission: what may be tried now.
        policy: the knob policy that Level 1 has deployed.
    """

    def __init__(
        self,
        learner: Learner,
        deployment: Deployment,
        space: KnobSpace,
        rollback_threshold: float,
        permission: Permission,
        policy: Policy = no_policy,
    ) -> None:
        self._learner, self._deployment, self._space = learner, deployment, space
        self._permission = permission
        self._rollback_threshold, self._policy = rollback_threshold, policy
        self._label = learner.workload
        self._of_the_policy: set[tuple[str, str]] = set()

    def serve(self, workload: int) -> None:
        """What is told from now on belongs to the workload of that number.

        Objectives of two workloads cannot be compared, so transitions are labelled with it.
        """
        self._learner.workload = self._label if workload == 1 else f"{self._label} {workload}"

    def ask(self, state: State) -> tuple[Mapping[str, KnobValue], str] | None:
        """The knobs to change, with who proposed it; None where nothing new comes up.

        What Level 1's policy would have comes first, each configuration once in a workload.
        """
        values = self._policy_changes(state)
        if values:
            return values, LEVEL_1
        for _ in range(MAX_ASKS):
            try:
                values = self._changes(self._learner.ask(state, self._deployment.present))
            except MemoryBudgetError as error:
                log.info("a proposal was dropped: %s", error)
                continue
            if values:
                return values, self._learner.proposer
        return None

    def _policy_changes(self, state: State) -> dict[str, KnobValue]:
        present = self._deployment.present
        wanted = None if state is None else self._policy(state, present)
        if wanted is None:
            return {}
        try:
            values = self._changes(wanted)
        except MemoryBudgetError as error:
            log.info("what the knob policy would have was dropped: %s", error)
            return {}
        once = (self._learner.workload, repr(sorted(values.items())))
        if once in self._of_the_policy:
            return {}
        self._of_the_policy.add(once)
        return values

    def advice(self, state: State) -> str:
        """The next proposal in words, for mode ``advise``."""
        try:
            values = self._changes(self._learner.advise(state, self._deployment.present))
        except MemoryBudgetError as error:
            return error.message
        text = ", ".join(f"{name} = {value}" for name, value in values.items())
        return f"worth a try: {text}" if text else "nothing to advise"

    def _changes(self, proposal: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        """What a proposal, shrunk to fit the memory budget, changes; nothing where it may not."""
        present = self._deployment.present
        wanted = self._permission.bounded(present.replace(proposal))
        # Only what may be tried can give way: what stands beside it takes what it takes.
        wanted = self._learner.fit({name: wanted[name] for name in self._space.names})
        changes = {name: value for name, value in wanted.items() if value != present.get(name)}
        return changes if self._permission.admits(changes) else {}

    def tell_standing(self, index: float, state: State, window: MetricsWindow) -> None:
        """Tell what a baseline has measured of what stands."""
        self._learner.tell(self._standing(), index, state, 1.0, window)

    def tell_trial(self, trial: Trial, index_standing: float, state: State) -> None:
        """Tell what came of a trial, the safety monitor's early stops included.

        Args:
            trial: finished, not aborted.
            index_standing: of the incumbent, in the workload of the trial.
            state: before the trial. The candidate's own windows show what the candidate does to
                the server, and nobody knows that when the next one is chosen.
        """
        learner, log_ratio = self._learner, trial.effect_log_ratio
        windows, config = trial.windows(Arm.CANDIDATE), self._changed(trial.plan.after)
        if log_ratio is not None and windows:
            objective = index_standing * math.exp(log_ratio)
            learner.tell(config, objective, state, trial.quality or 0.0, windows[-1])
        elif trial.stopped_log_ratio is not None:
            # One window, but how bad a configuration is leads the agent away from it.
            stopped = min(trial.stopped_log_ratio, MAX_STOPPED_LOG_RATIO)
            learner.tell(config, index_standing * math.exp(stopped), state, 1.0, None)
        elif trial.verdict is Verdict.REJECT:
            bound = index_standing * (1 + self._rollback_threshold)
            learner.tell(config, bound, state, 1.0, None, censored=True)

    def tell_too_slow(
        self, values: Mapping[str, KnobValue], index_standing: float, state: State
    ) -> None:
        """Tell that this is not to be tried: the server does not take it, or the sandbox failed it.

        So it is not asked for again.
        """
        bound = index_standing * (1 + self._rollback_threshold)
        self._learner.tell(self._changed(values), bound, state, 1.0, None, censored=True)

    def _changed(self, values: Mapping[str, KnobValue]) -> KnobConfig:
        tried = {name: value for name, value in values.items() if name in self._space}
        return self._standing().replace(tried)

    def _standing(self) -> KnobConfig:
        present = self._deployment.present
        return KnobConfig({name: present[name] for name in self._space.names if name in present})
