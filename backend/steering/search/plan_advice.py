"""The plan agent's part in the exploration: a first guess for each class, and lessons from runs.

Nothing that the agent does wrong may stop the exploration: after an exception it is left out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from backend.domain.plans import ExplainedPlan, HintSet, PlanRun
from backend.errors import ServerConnectionError, ServerError
from backend.protocols import Clock, PlanGuesser
from backend.steering.refusals import said
from backend.steering.search.class_search import ClassSearch

logger = logging.getLogger(__name__)

_MOST_EXPLAINS = 32
_MOST_EXPLAINING_S = 1.0
"""Of EXPLAINs that the agent asks for in one go, besides those that were made already."""

Explain = Callable[[ClassSearch, Sequence[HintSet]], Sequence[ExplainedPlan | None]]


class PlanAdvice:
    """Asks and tells an agent, as long as it behaves.

    Args:
        agent: None where there is none.
        explain: asks the server for plans that are not known yet.
        clock: time.
    """

    def __init__(self, agent: PlanGuesser | None, explain: Explain, clock: Clock) -> None:
        self._agent, self._explain, self._clock = agent, explain, clock

    def guess(self, search: ClassSearch) -> tuple[HintSet, ExplainedPlan | None] | None:
        """The hint set that the agent would serve, and its plan; None where that is the default.

        Raises:
            ServerError: the server could not explain.
        """
        if self._agent is None:
            return None
        plan_of = self._plans(search)
        try:
            guesses = self._agent.first_guess(search.key.fingerprint, plan_of)
            if not guesses or guesses[0].hint_set.is_default:
                return None
            return guesses[0].hint_set, plan_of(guesses[0].hint_set)
        except ServerError:
            raise
        except Exception as error:
            self._leave_out(error)
            return None

    def tell(self, search: ClassSearch, hint_set: HintSet, run: PlanRun) -> None:
        """Tell the agent of a run that finished with the right answer, or timed out.

        Where the server refuses to explain what it asks for, it does not learn of this run.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        if self._agent is None or not search.default_s or run.latency_s <= 0.0:
            return
        try:
            self._agent.tell(
                search.key.fingerprint,
                hint_set,
                math.log(run.latency_s / search.default_s),
                self._plans(search),
                timed_out=run.timed_out,
            )
        except ServerConnectionError:
            raise
        except ServerError as error:
            logger.info("nothing learnt from a run: %s", said(error))
        except Exception as error:
            self._leave_out(error)

    def _plans(self, search: ClassSearch) -> Callable[[HintSet], ExplainedPlan | None]:
        """Answers from what is known, and asks the server within bounds."""
        began_s, asked = self._clock.monotonic_s(), 0

        def plan_of(hint_set: HintSet) -> ExplainedPlan | None:
            nonlocal asked
            if search.is_explained(hint_set):
                return search.plan_under(hint_set)
            if asked >= _MOST_EXPLAINS or (
                self._clock.monotonic_s() - began_s > _MOST_EXPLAINING_S
            ):
                return None
            asked += 1
            plan = self._explain(search, [hint_set])[0]
            search.remember(hint_set, plan)
            return plan

        return plan_of

    def _leave_out(self, error: Exception) -> None:
        """Go on without the agent."""
        self._agent = None
        logger.error("the plan agent failed, exploration goes on without it", exc_info=error)
