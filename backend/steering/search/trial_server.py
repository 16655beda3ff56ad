"""The server as the exploration uses it: what each call costs is counted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from backend.domain.plans import DEFAULT_HINT_SET, ExplainedPlan, HintSet, PlanRun, RunOutcome
from backend.domain.steering import ClassKey
from backend.errors import ServerConnectionError, ServerError, StoreError
from backend.protocols import Clock
from backend.steering.refusals import is_transient
from backend.steering.running.runner import StatementRunner
from backend.steering.search.class_search import Arm, ClassSearch
from backend.steering.search.plan_run_log import PlanRunLog
from backend.steering.statements.read_only import ReadOnlyVerdict

PLANNING_TIMEOUT_S = 2.0

_COMPARING_S, _MOST_COMPARED = 0.1, 5
"""Beside each other plans run once, and up to five times until that takes so long."""
_COMPARING_FACTOR, _COMPARING_SLACK_S = 4.0, 0.1
"""There, a plan that was faster may run so many times as long as the default one, and a hiccup."""


class TrialServer:
    """Explains and runs statements.

    Args:
        runner_for: a runner for statements under a search path.
        log: is told of runs that end with the connection; of all others by whoever asked for them.
        clock: measures what is spent.

    Attributes:
        spent_s: seconds of the server's time so far.
        preparing_s: the part of it that was spent on plans and on measuring default plans.
    """

    def __init__(
        self, runner_for: Callable[[str], StatementRunner], log: PlanRunLog, clock: Clock
    ) -> None:
        self._runner_for, self._log, self._clock = runner_for, log, clock
        self.spent_s = self.preparing_s = 0.0

    def runner(self, key: ClassKey) -> StatementRunner:
        """The runner for a class's statements."""
        return self._runner_for(key.search_path)

    @contextlib.contextmanager
    def counted(
        self, search: ClassSearch | None = None, *, preparing: bool = False
    ) -> Iterator[None]:
        """Count what is done meanwhile as spent, for a class where one is named."""
        began_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            spent_s = self._clock.monotonic_s() - began_s
            self.spent_s += spent_s
            self.preparing_s += spent_s if preparing else 0.0
            if search is not None:
                search.spent_s += spent_s

    def explain(
        self, search: ClassSearch, hint_sets: Sequence[HintSet]
    ) -> list[ExplainedPlan | None]:
        """Plans of a class's statement; errors as :meth:`StatementRunner.explain` raises them."""
        with self.counted(search, preparing=True):
            return self.runner(search.key).explain(
                search.verdict, hint_sets, timeout_s=PLANNING_TIMEOUT_S
            )

    def explain_one(
        self, key: ClassKey, verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet]
    ) -> list[ExplainedPlan | None]:
        """Plans of any statement of a class."""
        with self.counted():
            return self.runner(key).explain(verdict, hint_sets, timeout_s=PLANNING_TIMEOUT_S)

    def run(
        self,
        search: ClassSearch,
        hint_sets: Sequence[HintSet],
        timeouts_s: Sequence[float],
        *,
        suspect: Arm | None = None,
    ) -> list[PlanRun]:
        """Run a class's statement under each hint set, in one snapshot.

        Args:
            search: of the class.
            hint_sets, timeouts_s: as for :meth:`StatementRunner.run`.
            suspect: the arm that runs, if any. It is closed where the connection is lost: a plan
                may be what ended the server (by its memory), and is not tried again.

        Returns:
            A run for each; where the server refused all of them, FAILED, or CANCELLED for a
            reason that passes.

        Raises:
            ServerConnectionError: the connection was lost; the class rests.
        """
        with self.counted(search, preparing=suspect is None):
            try:
                runs = self.runner(search.key).run(search.verdict, hint_sets, timeouts_s)
            except ServerConnectionError:
                if suspect is not None:
                    self.lost(search, suspect)
                search.to_compare = search.doubtful = None
                search.pause(self._clock.monotonic_s())
                raise
            except ServerError as error:
                outcome = RunOutcome.CANCELLED if is_transient(error) else RunOutcome.FAILED
                runs = [PlanRun(outcome, 0.0, detail=str(error))] * len(hint_sets)
        search.probes += len(runs)
        return runs

    def lost(self, search: ClassSearch, arm: Arm) -> None:
        """The connection was lost while an arm ran: close it, over restarts too."""
        arm.closed = "the server was lost while it ran"
        self._log.add(search, arm, PlanRun(RunOutcome.FAILED, 0.0))
        with contextlib.suppress(StoreError):  # it is stored later then
            self._log.store_all()

    def run_beside_default(
        self, search: ClassSearch, arm: Arm, max_timeout_s: float
    ) -> tuple[list[PlanRun], list[PlanRun]]:
        """Run an arm and the default plan in turns, in one snapshot.

        Each is as often the first: what ran before leaves its pages in the caches.

        Args:
            search: of the class; its default plan was measured.
            arm: the other plan.
            max_timeout_s: the longest that a run may take.

        Returns:
            The default plan's runs, and as many of the arm.

        Raises:
            ServerConnectionError: the connection was lost.
        """
        default_s = search.default_s or max_timeout_s
        timeout_s = min(_COMPARING_FACTOR * default_s + _COMPARING_SLACK_S, max_timeout_s)
        pairs = min(math.ceil(_COMPARING_S / (2.0 * default_s)), _MOST_COMPARED)
        order = ([DEFAULT_HINT_SET, arm.hint_set], [arm.hint_set, DEFAULT_HINT_SET])
        hint_sets = [hint_set for pair in range(pairs) for hint_set in order[pair % 2]]
        timeouts_s = [max_timeout_s if h.is_default else timeout_s for h in hint_sets]
        runs = list(
            zip(hint_sets, self.run(search, hint_sets, timeouts_s, suspect=arm), strict=True)
        )
        default = [run for hint_set, run in runs if hint_set.is_default]
        return default, [run for hint_set, run in runs if not hint_set.is_default]

    def in_force(self, key: ClassKey, settings: Sequence[str]) -> Mapping[str, str]:
        """Values of planner settings in force."""
        with self.counted():
            return self.runner(key).in_force(settings)
