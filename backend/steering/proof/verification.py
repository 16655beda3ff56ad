"""The gate of a hint set: it may be served only after it was measured faster here.

Statements of the class take turns, in an order by lot within each round. The first time each is run
once under each plan, which is not counted: caches. Then one *pair* a step: the default plan and the
hinted plan, in random order, in one snapshot, so that both see the same rows and their answers can
be compared. Short statements run several times in a pair. When a pair
counts as evidence, and of what, says :mod:`backend.steering.proof.verification_rule`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

from backend.domain.plans import DEFAULT_HINT_SET, HintSet, PlanRun, RunOutcome
from backend.domain.steering import HintEvidence
from backend.steering.client.planner_settings import SETTINGS
from backend.steering.proof.verification_rule import Look, StatementTimes, VerificationRule
from backend.steering.refusals import said
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyVerdict

MAX_STATEMENTS = 8
MAX_PAIRS = 40

_FILLED_S = 0.050
_MOST_RUNS = 9
"""Of one plan in a pair: as many as fill so many seconds, at most so many, an odd number. Their
median counts: a hiccup of milliseconds is a multiple of a short statement."""
_TIMEOUT_FACTOR = 4.0
_TIMEOUT_SLACK_S = 0.5
"""The hinted plan may take so many times as long as the default plan, and a hiccup more."""
_MAX_DISTURBANCES = 5
_TRANSIENT = (RunOutcome.LOCKED, RunOutcome.CANCELLED)


@dataclass(frozen=True)
class VerificationRun:
    """A run that was made, for the record.

    Args:
        statement: its index among the verdicts given.
        hint_set: what it ran under.
        run: what came of it.
    """

    statement: int
    hint_set: HintSet
    run: PlanRun


@dataclass(frozen=True)
class VerificationResult:
    """What came of a verification.

    Args:
        proven: whether the hint set may be served.
        reason: why, or why not, for people.
        effect: relative change of the time (-0.5: half), with the one-sided bounds ``ci_low`` and
            ``ci_high`` at ``confidence``; None where it ended before there was any.
        pairs: pairs of runs that count.
        statements: different statements that were run.
        default_ms, steered_ms: mean latency of a run; None before the first pair.
        disturbed: it ended without a finding, for reasons that are not the hint set's: locks,
            cancelled statements, settings that changed. It may be tried again.
    """

    proven: bool
    reason: str
    effect: float | None
    ci_low: float | None
    ci_high: float | None
    confidence: float
    pairs: int
    statements: int
    default_ms: float | None
    steered_ms: float | None
    disturbed: bool = False

    def evidence(
        self,
        hint_set: HintSet,
        *,
        under: Mapping[str, str],
        functions: Sequence[str],
        default_plan: str,
        steered_plan: str,
        verified_at: datetime,
    ) -> HintEvidence:
        """Make the record that a served hint set rests on.

        Args:
            hint_set: what was verified.
            under: :attr:`Verification.under`.
            functions: that the statement calls (``query_steering.functions_called``).
            default_plan, steered_plan: :meth:`StatementRunner.plan_text`.
            verified_at: when.

        Raises:
            ValueError: nothing was proven.
        """
        if (
            not self.proven
            or self.effect is None
            or self.ci_low is None
            or self.ci_high is None
            or self.default_ms is None
            or self.steered_ms is None
        ):
            raise ValueError(f"no evidence for {hint_set.name}: {self.reason}")
        return HintEvidence(
            hint_set=hint_set.name,
            settings=dict(hint_set.settings),
            under={name: under[name] for name in hint_set.settings},
            functions=tuple(sorted(functions)),
            statements=self.statements,
            pairs=self.pairs,
            effect=self.effect,
            ci_low=self.ci_low,
            ci_high=self.ci_high,
            confidence=self.confidence,
            default_ms=self.default_ms,
            steered_ms=self.steered_ms,
            default_plan=default_plan,
            steered_plan=steered_plan,
            verified_at=verified_at,
            settings_in_force=dict(under),
        )


class Verification:
    """Verifies one hint set for one class, a small step at a time.

    Args:
        runner: runs the statements; used by nobody else during a step.
        hint_set: what to verify, not the default.
        verdicts: read-only statements of the class, with different parameters; of more than
            ``MAX_STATEMENTS`` different ones, that many are drawn by lot.
        min_gain, alpha, max_pairs: see :class:`VerificationRule`.
        max_timeout_s: the longest that any run may take.
        seed: of the order of statements and runs.

    Raises:
        ValueError: no statement, one that is not read-only, or a value out of bounds.
    """

    def __init__(
        self,
        runner: StatementRunner,
        hint_set: HintSet,
        verdicts: Sequence[ReadOnlyVerdict],
        *,
        min_gain: float,
        alpha: float,
        max_timeout_s: float,
        max_pairs: int = MAX_PAIRS,
        seed: int = 0,
    ) -> None:
        if hint_set.is_default:
            raise ValueError("the default plan needs no verification")
        for verdict in verdicts:
            if not verdict.is_read_only:
                raise ValueError(f"only read-only statements are tried: {verdict.refusal}")
        self._runner, self._hint_set = runner, hint_set
        self._random = random.Random(seed)
        self._verdicts = tuple(verdicts)
        different = list({verdict.statement: i for i, verdict in enumerate(verdicts)}.values())
        self._chosen = (
            self._random.sample(different, MAX_STATEMENTS)
            if len(different) > MAX_STATEMENTS
            else different
        )
        self._rule = VerificationRule(len(self._chosen), min_gain, alpha, max_pairs)
        self._max_timeout_s = max_timeout_s
        self._under: Mapping[str, str] | None = None
        self._disturbances = 0
        self._result: VerificationResult | None = None
        self.spent_s = 0.0
        """Seconds that the server has spent on the runs."""
        self.runs: list[VerificationRun] = []
        """Of each pair the median run of each plan; of warming what did not finish; in order."""
        self._begin()

    @property
    def under(self) -> Mapping[str, str]:
        """Planner setting → value in force throughout, as ``SHOW`` prints it; empty at first."""
        return self._under or {}

    @property
    def progress(self) -> float:
        """How far it is, in [0, 1], should it take all its rounds; most end earlier."""
        if self._result is not None:
            return 1.0
        steps = (1 + self._rule.look_rounds[-1]) * len(self._chosen)
        return min((len(self._warm_s) + self._pairs) / steps, 1.0)

    def step(self) -> VerificationResult | None:
        """Warm a statement, or run one pair; the result once there is one.

        Raises:
            KnobError: the hint set is not of the catalogue.
            ServerConnectionError: the server cannot be reached; the step may be tried again.
            ServerError: the server refused to tell its settings.
        """
        if self._result is None:
            self._result = self._advance()
        return self._result

    # -- inside -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Forget all pairs."""
        self._times = {index: StatementTimes() for index in self._chosen}
        self._warm_s: dict[int, float] = {}
        self._going_on = list(self._chosen)
        self._turns: list[int] = []
        self._answers_compared = False
        self._look: Look | None = None
        self._next_look = self._rule.look_rounds[0]

    @property
    def _pairs(self) -> int:
        return sum(len(times.default_s) for times in self._times.values())

    def _advance(self) -> VerificationResult | None:
        if self._under is None:
            self._under = self._runner.in_force(SETTINGS)
        if not self._turns:
            self._turns = self._random.sample(self._going_on, len(self._going_on))
        statement = self._turns[-1]
        if statement not in self._warm_s:
            return self._warm(statement)
        result = self._pair(statement)
        if result is not None or self._turns or not self._pairs:
            return result
        if not self._answers_compared:
            return self._not_proven(
                f"the default plan never finished within {self._max_timeout_s:g} s, so there is "
                "no answer to compare with"
            )
        return self._judge()

    def _judge(self) -> VerificationResult | None:
        """Look at the evidence if it is time to."""
        rounds = len(self._times[self._going_on[0]].default_s)
        if rounds < self._next_look:
            return None
        times = [self._times[index] for index in self._chosen]
        if self._look is None:
            look = self._rule.look(times)
        else:
            look = self._rule.look_again(times, self._look)
        if look.proven is not None:
            return self._ended(look.proven, look.reason, look)
        if look.unclear:
            self._look = look
            self._going_on = [self._chosen[index] for index in look.unclear]
            self._next_look = 2 * rounds
        else:
            self._next_look = min(n for n in self._rule.look_rounds if n > rounds)
        return None

    def _warm(self, statement: int) -> VerificationResult | None:
        """Run a statement once under each plan; the default first, for the other's time-out."""
        default = self._run(statement, [DEFAULT_HINT_SET], self._max_timeout_s)[0]
        hinted = None
        if default.outcome in (RunOutcome.FINISHED, RunOutcome.TIMED_OUT):
            timeout_s = self._timeout_s(default.latency_s)
            hinted = self._run(statement, [self._hint_set], timeout_s)[0]
            if hinted.outcome is not RunOutcome.FINISHED:
                self.runs.append(VerificationRun(statement, self._hint_set, hinted))
        for run in (default, hinted):
            if run is not None and run.outcome in _TRANSIENT:
                return self._disturbed(run.outcome.value)
        problem = self._problem([default], [] if hinted is None else [hinted])
        if problem is not None:
            return self._not_proven(problem)
        self._warm_s[statement] = default.latency_s
        return None

    def _pair(self, statement: int) -> VerificationResult | None:
        """Run both plans in one snapshot, and keep their times."""
        known = self._times[statement].default_s
        default_s = fmean(known) if known else self._warm_s[statement]
        arms: list[HintSet] = []
        for _ in range(_repeats(default_s)):
            arms += self._random.sample([DEFAULT_HINT_SET, self._hint_set], 2)
        runs = self._run(statement, arms, self._timeout_s(default_s))
        default = [run for arm, run in zip(arms, runs, strict=True) if arm.is_default]
        hinted = [run for arm, run in zip(arms, runs, strict=True) if not arm.is_default]
        default_run, hinted_run = _median_run(default), _median_run(hinted)
        self.runs.append(VerificationRun(statement, DEFAULT_HINT_SET, default_run))
        self.runs.append(VerificationRun(statement, self._hint_set, hinted_run))
        disturbance = next((run for run in runs if run.outcome in _TRANSIENT), None)
        if disturbance is not None:
            return self._disturbed(disturbance.outcome.value)
        problem = self._problem(default, hinted)
        if problem is not None:
            return self._not_proven(problem)
        finished = [run for run in default if run.outcome is RunOutcome.FINISHED]
        if finished:
            if not all(run.same_answer(finished[0]) for run in (*finished, *hinted)):
                return self._not_proven(
                    "the answers under both plans differ, or the statement's answer is chance"
                )
            self._answers_compared = True
        if self._runner.in_force(SETTINGS) != self._under:
            self._under = None
            self._begin()
            return self._disturbed("planner settings changed meanwhile")
        self._times[statement].default_s.append(default_run.latency_s)
        self._times[statement].steered_s.append(hinted_run.latency_s)
        self._turns.pop()
        return None

    def _timeout_s(self, default_s: float) -> float:
        """How long the hinted plan may take."""
        return min(_TIMEOUT_FACTOR * default_s + _TIMEOUT_SLACK_S, self._max_timeout_s)

    def _run(
        self, statement: int, arms: Sequence[HintSet], hinted_timeout_s: float
    ) -> list[PlanRun]:
        timeouts = [self._max_timeout_s if arm.is_default else hinted_timeout_s for arm in arms]
        runs = self._runner.run(self._verdicts[statement], arms, timeouts)
        self.spent_s += sum(run.latency_s for run in runs)
        return runs

    def _problem(self, default: Sequence[PlanRun], hinted: Sequence[PlanRun]) -> str | None:
        """Why these runs prove that the hint set may not be served, if they do."""
        for run in hinted:
            if run.timed_out:
                default_s = fmean(other.latency_s for other in default)
                return (
                    f"under the hint set a statement was stopped after {run.latency_s:.3g} s; the "
                    f"default plan took {default_s:.3g} s"
                )
        for plan, runs in (("the default plan", default), ("the hint set", hinted)):
            for run in runs:
                if run.outcome not in (RunOutcome.FINISHED, RunOutcome.TIMED_OUT):
                    failed = run.outcome is RunOutcome.FAILED
                    why = said(run.detail) if failed else run.outcome.value
                    return f"under {plan}: {why}"
        return None

    def _disturbed(self, why: str) -> VerificationResult | None:
        """Count it; the step is repeated, unless that has happened too often."""
        self._disturbances += 1
        if self._disturbances <= _MAX_DISTURBANCES:
            return None
        return self._ended(False, f"disturbed {self._disturbances} times, last: {why}", None, True)

    def _not_proven(self, reason: str) -> VerificationResult:
        return self._ended(False, reason)

    def _ended(
        self, proven: bool, reason: str, look: Look | None = None, disturbed: bool = False
    ) -> VerificationResult:
        interval = look.interval if look else None
        measured = [times for times in self._times.values() if times.default_s]
        default_ms = [1000 * fmean(times.default_s) for times in measured]
        steered_ms = [1000 * fmean(times.steered_s) for times in measured]
        return VerificationResult(
            proven=proven,
            reason=reason,
            effect=interval.effect if interval else None,
            ci_low=interval.low if interval else None,
            ci_high=interval.high if interval else None,
            confidence=self._rule.confidence,
            pairs=self._pairs,
            statements=len(self._chosen),
            default_ms=fmean(default_ms) if default_ms else None,
            steered_ms=fmean(steered_ms) if steered_ms else None,
            disturbed=disturbed,
        )


def _repeats(default_s: float) -> int:
    """How often each plan runs in a pair of a statement that takes so long."""
    fitting = int(min(_FILLED_S / max(default_s, 1e-6), _MOST_RUNS))
    return max(fitting - (fitting + 1) % 2, 1)


def _median_run(runs: Sequence[PlanRun]) -> PlanRun:
    """The one that did not finish, if there is one, else the one of median latency."""
    broken = [run for run in runs if run.outcome is not RunOutcome.FINISHED]
    return broken[0] if broken else sorted(runs, key=lambda run: run.latency_s)[len(runs) // 2]
