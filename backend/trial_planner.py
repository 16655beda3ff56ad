"""Plans of trials and of bounded runs: all that is set before the first window."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from backend.config import Level1Section, Settings
from backend.deployment import Deployment
from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.domain.modes import Arm, TrialKind
from backend.gate import GateSettings, trial_alpha
from backend.guidance import as_set
from backend.protocols import Clock, Store
from backend.sample_filter import Reference
from backend.trials import TrialPlan


@dataclass(frozen=True)
class RunSchedule:
    """Moments of a bounded run, in seconds of the monotonic clock; None: never.

    ``promote_until_s``: later a promotion would hardly end before the comparison begins.
    ``recheck_every_s`` is a length: what has stood for so long is compared again.
    """

    promote_until_s: float | None = None
    learn_until_s: float | None = None
    compare_at_s: float | None = None
    compare_blocks: int = 6
    recheck_every_s: float = 86_400.0

    @classmethod
    def bounded(cls, start_s: float, total_s: float, level1: Level1Section) -> RunSchedule:
        """Plan a run of ``total_s`` real seconds that ends with the final comparison.

        The comparison takes up to 30 % of the time, in 4 to 10 blocks.
        """
        block_s = 4 * level1.window_s + 3 * level1.settle_s
        blocks = int(min(max(0.3 * total_s // block_s, 4), 10))
        compare_at_s = start_s + max(total_s - blocks * block_s, 0.3 * total_s)
        return cls(
            promote_until_s=compare_at_s - (level1.min_blocks + 1) * block_s,
            learn_until_s=compare_at_s - 0.1 * total_s,
            compare_at_s=compare_at_s,
            compare_blocks=blocks,
        )

    def may_promote(self, now_s: float) -> bool:
        """Whether a promotion may still begin."""
        return self.promote_until_s is None or now_s < self.promote_until_s

    def may_learn(self, now_s: float) -> bool:
        """Whether a probe may still begin."""
        return self.learn_until_s is None or now_s < self.learn_until_s


class TrialPlanner:
    """Makes the plans of trials from the settings, the deployment and the day's allowance."""

    def __init__(
        self,
        settings: Settings,
        space: KnobSpace,
        deployment: Deployment,
        store: Store,
        clock: Clock,
        gate: Callable[[GateSettings], GateSettings] = as_set,
    ) -> None:
        self._gate = gate
        self._level1, self._seed = settings.level1, settings.workload.seed
        self._space, self._deployment = space, deployment
        self._store, self._clock = store, clock
        self._planned = 0

    def plan(
        self,
        kind: TrialKind,
        values: Mapping[str, KnobValue],
        proposer: str,
        shares: Reference,
        noise: float,
    ) -> TrialPlan:
        """A trial of ``values`` against what is deployed.

        Args:
            kind: of trial.
            values: the knobs that differ, native.
            proposer: who proposed it, for people.
            shares: the fixed class set with its call shares.
            noise: standard deviation of one window's log ratio; a probe must beat it.
        """
        level1, present = self._level1, self._deployment.present
        alpha = self._alpha_of_the_day() if kind is TrialKind.PROMOTION else level1.alpha
        self._planned += 1
        return TrialPlan(
            kind=kind,
            proposer=proposer,
            before={name: present.get(name) for name in values},
            after=dict(values),
            other_values=dict(values),
            deployed=Arm.INCUMBENT,
            shares=shares,
            gate=self._gate(replace(GateSettings.of(level1), alpha=alpha)),
            window_s=level1.window_s,
            settle_s=self._settle_s(values),
            needs_restart=self.restarts(values),
            filtered=level1.sample_filter,
            min_quality=level1.min_quality,
            promising_below=-max(level1.min_improvement, noise),
            seed=self._seed + self._planned,
        )

    def turned_around(
        self, plan: TrialPlan, former: Mapping[str, KnobValue], blocks: int
    ) -> TrialPlan:
        """The candidate is what stands, the incumbent what stood before.

        ``former`` are the entries that stood then; a knob that had none gets its entry removed.
        """
        other = {name: former.get(name) for name in plan.after}
        before = {name: former.get(name, self._deployment.default_of(name)) for name in plan.after}
        gate = replace(plan.gate, min_blocks=min(3, blocks), max_blocks=max(blocks, 2))
        return replace(plan, deployed=Arm.CANDIDATE, before=before, other_values=other, gate=gate)

    def least_s(self, kind: TrialKind, values: Collection[str]) -> float:
        """Seconds that a trial of these knobs takes at the least, before it can have a verdict."""
        windows = {TrialKind.PROBE: 3, TrialKind.PROMOTION: 4 * self._level1.min_blocks}.get(
            kind, 2
        )
        return windows * (self._level1.window_s + self._settle_s(values))

    def restarts(self, values: Collection[str]) -> bool:
        """Whether the server has to be restarted for one of these knobs."""
        return any(knob.context == "restart" for knob in self._knobs(values))

    def _knobs(self, values: Collection[str]) -> list[Knob]:
        return [self._space[name] for name in values if name in self._space]

    def _settle_s(self, values: Collection[str]) -> float:
        return max([self._level1.settle_s, *(knob.settle_s for knob in self._knobs(values))])

    def _alpha_of_the_day(self) -> float:
        today = self._clock.now().date()
        earlier = sum(
            trial.kind is TrialKind.PROMOTION and trial.created_at.date() == today
            for trial in self._store.trials(limit=1000)
        )
        return trial_alpha(earlier + 1, self._level1.alpha, self._level1.daily_alpha)
