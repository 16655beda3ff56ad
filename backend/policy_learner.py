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

import numpy as np
from numpy.typing import NDArray

from backend.config import Settings
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.records import PolicyUpdateRecord
from backend.errors import AutopilotError, CheckpointError
from backend.offline_training import Recorded, training_data
from backend.policy.knob_policy import KnobPolicy
from backend.policy.knob_update import Candidate, Rule, learn_and_judge
from backend.policy.networks import LearningStoppedError
from backend.policy.recorded_trials import RecordedTrials
from backend.policy.weights_files import WeightsFiles
from backend.policy_versions import PolicyVersions
from backend.protocols import Clock, Store
from backend.state_features import OFFERED_COLUMNS, STATE_LAYOUT

log = logging.getLogger(__name__)

PROPOSER = "policy (Level 1)"
"""Who proposed a trial of the knob policy's configuration; the author of its deployment."""
KNOB, PLAN = "knob", "plan"
WEIGHTS_OF = {KNOB: "knob policy", PLAN: "plan policy"}
"""What a policy version calls the weights of each policy."""
MIN_TRANSITIONS = 20
"""With fewer, nothing is learnt."""


class PolicyLearner:
    """See the module's text. One thread at a time; :meth:`update` may be stopped from another.

    Args:
        settings: sections level0.knob, level1 and paths.
        space: the knobs that may be tried.
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
        store: Store,
        clock: Clock,
        versions: PolicyVersions,
        *,
        time_scale: float = 1.0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._level1, self._floor = settings.level1, settings.level0.knob.quality_floor
        self._seed = settings.workload.seed
        self._space, self._store, self._clock, self._versions = space, store, clock, versions
        self._interval_s = settings.level1.update_interval / time_scale
        self._stopped = stopped
        self._files = WeightsFiles.of(settings)
        self._since_s = clock.monotonic_s()
        self._learnt_from: dict[str, int] = {}
        self._policy: tuple[str, KnobPolicy | None] = ("", None)

    def due(self) -> bool:
        """Whether ``level1.update_interval`` has passed since the last update, or the start."""
        return self._clock.monotonic_s() - self._since_s >= self._interval_s

    def update(self) -> Sequence[PolicyUpdateRecord]:
        """Learn, judge, deploy or not; what was recorded of it.

        Nothing where nothing new was recorded since the last update, where there is too little to
        learn from, or when it was stopped: it is due again then.
        """
        try:
            done = [record for record in (self._update_knobs(),) if record is not None]
        except LearningStoppedError:
            return ()
        self._since_s = self._clock.monotonic_s()
        return done

    # -- the knob policy ----------------------------------------------------------------------

    def propose(
        self, state: NDArray[np.float64], present: Mapping[str, KnobValue]
    ) -> KnobConfig | None:
        """What the deployed knob policy would have in place of ``present``.

        Args:
            state: as of ``state_features.state_vector``.
            present: what stands; knobs of it that the policy does not know stay.

        Returns:
            None where no policy is deployed, or the load is unlike any that it learnt from.
        """
        policy = self._deployed_knobs()
        if policy is None or not policy.familiar(state):
            return None
        return KnobConfig(dict(present)).replace(policy.config(state))

    def _deployed_knobs(self) -> KnobPolicy | None:
        """The policy that the active version names, read once."""
        name = self._versions.weights.get(WEIGHTS_OF[KNOB], "")
        if name != self._policy[0]:
            policy = None
            if name:
                try:
                    policy = KnobPolicy.restored(
                        *self._files.read(name), self._space, STATE_LAYOUT, OFFERED_COLUMNS
                    )
                except CheckpointError as error:
                    log.warning("the deployed knob policy is not used: %s", error)
            self._policy = (name, policy)
        return self._policy[1]

    def _update_knobs(self) -> PolicyUpdateRecord | None:
        began_s = self._clock.monotonic_s()
        try:
            recorded = Recorded.read(self._store, "the store")
            data = RecordedTrials.of(training_data([recorded], self._floor, self._space))
        except AutopilotError as error:
            log.info("no knob policy is learnt: %s", error.message)
            return None
        if len(data) < MIN_TRANSITIONS or len(data) == self._learnt_from.get(KNOB):
            return None
        deployed = self._deployed_knobs()
        candidate = learn_and_judge(
            data,
            None if deployed is None else deployed.actions,
            OFFERED_COLUMNS,
            alpha=self._level1.alpha,
            seed=self._seed,
            stopped=self._stopped,
        )
        self._learnt_from[KNOB] = len(data)
        rule = Rule(self._level1.min_improvement)
        objection = rule.objection(candidate.estimate) or rule.objection(candidate.whole)
        return self._conclude(candidate, objection, began_s)

    def _conclude(self, candidate: Candidate, objection: str, began_s: float) -> PolicyUpdateRecord:
        """Record the update; deploy it where nothing is against it."""
        found = candidate.estimate
        replaced = self._versions.weights.get(WEIGHTS_OF[KNOB], "")
        deploys = not objection and self._versions.active is not None
        weights = self._files.write(*candidate.policy.file(STATE_LAYOUT)) if deploys else ""
        against = f"against {'the policy before' if replaced else 'what stood before'}"
        record = PolicyUpdateRecord(
            at=self._clock.now(),
            policy=KNOB,
            deployed=deploys,
            reason=objection or f"latency {found.interval} {against}, on trials it never saw",
            learnt_from=found.rows,
            judged_on=found.rows,
            gain=None if found.interval is None else -found.interval.effect,
            gain_low=None if found.interval is None else -found.interval.high,
            gain_high=None if found.interval is None else -found.interval.low,
            coverage=found.coverage,
            weights=weights,
            replaced=replaced,
            duration_s=self._clock.monotonic_s() - began_s,
        )
        with self._versions.together():
            self._store.add_policy_update(record)
            if deploys:
                self._versions.deploy_weights(
                    {WEIGHTS_OF[KNOB]: weights}, author=PROPOSER, note=record.reason
                )
        return record
