"""Level 1's learner: now and then new policies from all that was recorded, judged, deployed or not.

At each ``level1.update_interval``, for the *knob policy* (state -> configuration) and the *plan
policy* (default plan -> hint set to try first):

1. learn a new one by advantage-weighted regression (Peng et al. 2019) on all recorded trials;
2. estimate, on trials that it never saw, what it gains over the one that is deployed;
3. deploy it when the interval of the gain is above zero, the gain worth it, and enough was
   recorded near what it would do; else keep what stands.

A deployed knob policy only proposes: its configuration passes sandbox, probe and promotion like
any other. What is learnt is a file named by its content, written before one transaction of the
store records the update and deploys it. docs/policy-learning.md has the formulas and sources.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.catalog.hint_sets import HintSetCatalog
from backend.config import Settings
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.modes import LEVEL_1
from backend.domain.policies import PolicyUpdateRecord
from backend.domain.records import EventRecord
from backend.errors import AutopilotError, CheckpointError
from backend.plan_learning import plan_agent_folder
from backend.policy.knob_policy import KnobPolicy
from backend.policy.networks import LearningStoppedError
from backend.policy.off_policy import Estimate
from backend.policy.plan_policy import PlanPolicy
from backend.policy.recorded_plans import read_plans
from backend.policy.recorded_trials import RecordedTrials
from backend.policy.updates import Rule, learn_and_judge, learn_and_judge_plans
from backend.policy.weights_files import WeightsFiles
from backend.policy_versions import PolicyVersions
from backend.protocols import Clock, Store
from backend.state_features import OFFERED_COLUMNS, STATE_LAYOUT
from backend.training_data import Recorded, training_data

log = logging.getLogger(__name__)

KNOB, PLAN = "knob", "plan"
WEIGHTS_OF = {KNOB: "knob policy", PLAN: "plan policy"}
"""What a policy version calls the weights of each policy."""
MIN_TRANSITIONS, MIN_PLAN_RUNS = 20, 20
"""With fewer, nothing is learnt."""
MIN_MEASURED = 0.5
"""Of held-out statements: both policies' first choices were run for so many at least."""

Arrays = Mapping[str, NDArray[np.generic]]
P = TypeVar("P")


class PolicyLearner:
    """See the module's text. One thread at a time; :meth:`update` may be stopped from another.

    Args:
        settings: sections level0.knob, level1 and paths.
        space: the knobs that may be tried.
        catalog: the hint sets of the server.
        store: holds what was recorded; updates go there.
        clock: time.
        versions: what is deployed.
        time_scale: so many times as fast passes the time of ``level1.update_interval``.
        stopped: asked every few hundredths of a second while something is learnt.
    """

    def __init__(
        self,
        settings: Settings,
        space: KnobSpace,
        catalog: HintSetCatalog,
        store: Store,
        clock: Clock,
        versions: PolicyVersions,
        *,
        time_scale: float = 1.0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._level1, self._floor = settings.level1, settings.level0.knob.quality_floor
        self._plan_agent = plan_agent_folder(settings)
        self._seed = settings.workload.seed
        self._space, self._catalog, self._versions = space, catalog, versions
        self._store, self._clock, self._stopped = store, clock, stopped
        self._interval_s = settings.level1.update_interval / time_scale
        self._files = WeightsFiles.of(settings)
        self._since_s = clock.monotonic_s()
        self._learnt_from: dict[str, int] = {}
        self._knobs: tuple[str, KnobPolicy | None] = ("", None)
        self._plans: tuple[str, PlanPolicy | None] = ("", None)
        self._answers: list[NDArray[np.float64]] = []

    def due(self) -> bool:
        """Whether ``level1.update_interval`` has passed since the last update, or the start."""
        return self._clock.monotonic_s() - self._since_s >= self._interval_s

    def update(self) -> Sequence[PolicyUpdateRecord]:
        """Learn, judge, deploy or not; what was recorded of it.

        Nothing of a policy for which nothing new was recorded since the last update, or too little
        to learn from. Where it was stopped, it is due again.
        """
        done = []
        try:
            for improve in (self._improve_knobs, self._improve_plans):
                if (record := improve()) is not None:
                    done.append(record)
        except LearningStoppedError:
            return done
        self._since_s = self._clock.monotonic_s()
        return done

    # -- what is deployed ---------------------------------------------------------------------

    def propose(
        self, state: NDArray[np.float64], present: Mapping[str, KnobValue]
    ) -> KnobConfig | None:
        """What the deployed knob policy would have in place of ``present``, not yet clamped.

        Args:
            state: as of ``state_features.state_vector``.
            present: what stands; knobs of it that the policy does not know stay.

        Returns:
            None where no policy is deployed, or the load is unlike any that it learnt from. States
            whose answers differ by less than the policy's doubt get one, to the digit.
        """
        policy = self._knob_policy()
        if policy is None or not policy.familiar(state):
            return None
        (answer,) = policy.answers(state[None])
        for before in self._answers:
            if not policy.differs(answer, before).any():
                answer = before
                break
        else:
            self._answers.append(answer)
        standing = self._space.encode(present)
        (action,) = policy.moved(answer[None], standing[None])
        wanted, stays = self._space.decode(action), self._space.decode(standing)
        changes = {name: value for name, value in wanted.items() if value != stays[name]}
        return KnobConfig(dict(present)).replace(changes)

    def plan_policy(self) -> PlanPolicy | None:
        """The deployed plan policy, for ``PolicyGuesser``; any thread may ask."""
        name = self._deployed(PLAN)
        if name != self._plans[0]:
            self._plans = (name, self._read(name, PlanPolicy.restored))
        return self._plans[1]

    def _knob_policy(self) -> KnobPolicy | None:
        def restored(about: Mapping[str, Any], arrays: Arrays) -> KnobPolicy:
            return KnobPolicy.restored(about, arrays, self._space, STATE_LAYOUT, OFFERED_COLUMNS)

        name = self._deployed(KNOB)
        if name != self._knobs[0]:
            self._knobs = (name, self._read(name, restored))
            self._answers = []
        return self._knobs[1]

    def _deployed(self, policy: str) -> str:
        """The file that the active version names for a policy, "" for none."""
        return self._versions.weights.get(WEIGHTS_OF[policy], "")

    def _read(self, name: str, restored: Callable[[Mapping[str, Any], Arrays], P]) -> P | None:
        if not name:
            return None
        try:
            return restored(*self._files.read(name))
        except CheckpointError as error:
            message = f"the deployed policy {name:.12} is not used: {error.message}"
            self._store.add_event(EventRecord(self._clock.now(), "warning", "learning", message))
            return None

    # -- new policies -------------------------------------------------------------------------

    def _improve_knobs(self) -> PolicyUpdateRecord | None:
        began_s = self._clock.monotonic_s()
        try:
            recorded = Recorded.read(self._store, "the store")
            data = RecordedTrials.of(training_data([recorded], self._floor, self._space))
        except AutopilotError as error:
            log.info("no knob policy is learnt: %s", error.message)
            return None
        if not self._worth_learning(KNOB, len(data), MIN_TRANSITIONS):
            return None
        deployed = self._knob_policy()
        candidate = learn_and_judge(
            data,
            None if deployed is None else deployed.actions,
            OFFERED_COLUMNS,
            alpha=self._level1.alpha,
            seed=self._seed,
            stopped=self._stopped,
        )
        rule = Rule(self._level1.min_improvement)
        objection = rule.objection(candidate.estimate) or rule.objection(candidate.whole)
        file = candidate.policy.file(STATE_LAYOUT)
        return self._conclude(KNOB, len(data), candidate.estimate, objection, file, began_s)

    def _improve_plans(self) -> PolicyUpdateRecord | None:
        began_s = self._clock.monotonic_s()
        try:
            data = read_plans(self._plan_agent, self._catalog)
        except CheckpointError as error:
            log.info("no plan policy is learnt: %s", error.message)
            return None
        if data is None or not self._worth_learning(PLAN, data.runs, MIN_PLAN_RUNS):
            return None
        policy, found = learn_and_judge_plans(
            data,
            self.plan_policy(),
            alpha=self._level1.alpha,
            seed=self._seed,
            stopped=self._stopped,
        )
        objection = Rule(self._level1.min_improvement, MIN_MEASURED).objection(found)
        return self._conclude(PLAN, data.runs, found, objection, policy.file(), began_s)

    def _worth_learning(self, policy: str, samples: int, least: int) -> bool:
        """Whether there is enough, and more than the last update had."""
        return samples >= least and samples != self._learnt_from.get(policy)

    def _conclude(
        self,
        policy: str,
        learnt_from: int,
        found: Estimate,
        objection: str,
        file: tuple[Mapping[str, Any], Arrays],
        began_s: float,
    ) -> PolicyUpdateRecord:
        """Record the update; deploy it where nothing is against it."""
        self._learnt_from[policy] = learnt_from
        if not objection and self._versions.active is None:
            objection = "nothing is deployed yet that it could be deployed on"
        replaced, interval = self._deployed(policy), found.interval
        against = "the policy before" if replaced else "what was done without a policy"
        record = PolicyUpdateRecord(
            at=self._clock.now(),
            policy=policy,
            deployed=not objection,
            reason=objection or f"latency {interval} against {against}, on what it never saw",
            learnt_from=learnt_from,
            judged_on=found.rows,
            gain=None if interval is None else -interval.effect,
            gain_low=None if interval is None else -interval.high,
            gain_high=None if interval is None else -interval.low,
            coverage=found.coverage,
            weights="" if objection else self._files.write(*file),
            replaced=replaced,
            duration_s=self._clock.monotonic_s() - began_s,
        )
        with self._versions.together():
            self._store.add_policy_update(record)
            if record.deployed:
                self._versions.deploy_weights(
                    {WEIGHTS_OF[policy]: record.weights}, author=LEVEL_1, note=record.reason
                )
        return record
