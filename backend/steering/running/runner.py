"""Explains and runs a statement under hint sets, and compares the answers.

All arms of one call see the same state of the data and the same ``now()``: one REPEATABLE READ,
READ ONLY transaction, with a savepoint and SET LOCAL for each arm, taken back at its end. So a
different answer is the hint set's doing (or the statement's own, such as a LIMIT without ORDER BY),
and no setting outlives its arm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg2
from psycopg2 import errors as pgerrors
from sqlalchemy.engine import URL

from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import ExplainedPlan, HintSet, PlanRun, RunOutcome
from backend.errors import ServerError
from backend.steering.client.planner_settings import SETTINGS
from backend.steering.plans.plan_features import (
    RelationSize,
    RelationSizes,
    explained_plan,
    relations,
)
from backend.steering.plans.plan_text import plan_text
from backend.steering.plans.plan_tree import read_plan
from backend.steering.refusals import is_transient
from backend.steering.running.answer import Answer, AnswerTooLargeError
from backend.steering.running.trial_session import TrialSession, refusal
from backend.steering.statements.read_only import ReadOnlyVerdict

MAX_TIMEOUT_S = 86_400.0

_LOCK_TIMEOUT_MS = 100
_SIZES = """
SELECT n.nspname, c.relname, c.reltuples, c.relpages * current_setting('block_size')::float8
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     JOIN unnest(%s::text[], %s::text[]) AS wanted(schema, name)
          ON n.nspname = wanted.schema AND c.relname = wanted.name
"""
# Without the view pg_settings, which works out all settings for every row; unknown names are NULL.
_IN_FORCE = """
SELECT name, value FROM (
    SELECT name, pg_catalog.current_setting(name, true) AS value FROM unnest(%s::text[]) AS name
) AS known WHERE value IS NOT NULL
"""


class StatementRunner:
    """Tries statements in a session of its own.

    Args:
        url: where to: best a role that may only read, on a stand-by if there is one.
        catalog: the hint sets of that server; whatever passes its bounds is refused.
        search_path: what unqualified names mean in the statements.
        max_answer_bytes: the most memory that an answer may take here; a larger one is broken off.
    """

    def __init__(
        self,
        url: URL,
        catalog: HintSetCatalog,
        *,
        search_path: str = '"$user", public',
        max_answer_bytes: int = 64 << 20,
    ) -> None:
        self._session = TrialSession(url, search_path=search_path)
        self._catalog = catalog
        self._max_answer_bytes = max_answer_bytes

    def close(self) -> None:
        """End the session. Idempotent."""
        self._session.close()

    def cancel(self) -> None:
        """End what the server does for this session now; safe from any thread."""
        self._session.cancel()

    def fill_in(self, statement: str, parameters: Any) -> str:
        """Return a statement in psycopg2's style with its parameters as literals.

        Do this first: what is judged read-only must be what runs.
        """
        return self._session.fill_in(statement, parameters)

    def explain(
        self, verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet], *, timeout_s: float = 5.0
    ) -> list[ExplainedPlan | None]:
        """What the planner would do under each hint set; nothing runs.

        Args:
            verdict: of a read-only statement.
            hint_sets: the arms.
            timeout_s: for planning under one of them.

        Returns:
            For each hint set its plan; None where planning took too long.

        Raises:
            ValueError: the verdict refuses the statement.
            KnobError: a hint set is not of the catalogue.
            ServerConnectionError: the server cannot be reached.
            ServerError: it cannot explain the statement.
        """
        self._check(verdict, hint_sets, [timeout_s])
        try:
            with self._session.snapshot():
                answers = [self._explained(verdict, h, timeout_s) for h in hint_sets]
                sizes = self._sizes([answer for answer in answers if answer is not None])
        except psycopg2.Error as error:
            raise refusal(error) from None
        return [None if answer is None else explained_plan(answer, sizes) for answer in answers]

    def run(
        self, verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet], timeouts_s: Sequence[float]
    ) -> list[PlanRun]:
        """Run the statement under each hint set, one after the other.

        The latency is that of the statement itself, planning and the transfer of its answer
        included; summing up the answer comes afterwards.

        Args:
            verdict: of a read-only statement.
            hint_sets: the arms, in the order in which they run.
            timeouts_s: the time-out of each, in (0, 86400].

        Returns:
            A run for each hint set. After an answer too large to compare nothing more is run; the
            hint sets left count as TOO_LARGE with latency 0.

        Raises:
            ValueError: the verdict refuses the statement, or a time-out is out of bounds.
            KnobError: a hint set is not of the catalogue.
            ServerConnectionError: the server cannot be reached, or was lost.
        """
        self._check(verdict, hint_sets, timeouts_s)
        runs: list[PlanRun] = []
        try:
            with self._session.snapshot():
                for hint_set, timeout_s in zip(hint_sets, timeouts_s, strict=True):
                    runs.append(self._run(verdict, hint_set, timeout_s))
                    if runs[-1].outcome is RunOutcome.TOO_LARGE:
                        break
        except psycopg2.Error as error:
            raise refusal(error) from None
        not_run = PlanRun(RunOutcome.TOO_LARGE, 0.0, detail="not run")
        return runs + [not_run] * (len(hint_sets) - len(runs))

    def plan_text(
        self, verdict: ReadOnlyVerdict, hint_set: HintSet, *, timeout_s: float = 5.0
    ) -> str:
        """The plan under a hint set for people to read, without the statement's constants.

        Args:
            verdict: of a read-only statement.
            hint_set: the arm.
            timeout_s: for planning.

        Raises:
            ValueError: the verdict refuses the statement.
            KnobError: the hint set is not of the catalogue.
            ServerConnectionError: the server cannot be reached.
            ServerError: it cannot explain the statement, or not in time.
        """
        self._check(verdict, [hint_set], [timeout_s])
        try:
            with self._session.snapshot():
                answer = self._explained(verdict, hint_set, timeout_s, "FORMAT JSON, SETTINGS")
        except psycopg2.Error as error:
            raise refusal(error) from None
        if answer is None:
            raise ServerError(
                f"planning under {hint_set.name} took more than {timeout_s:g} s",
                remedy="try again when the server has less to do",
            )
        return plan_text(read_plan(answer))

    def in_force(self, settings: Iterable[str]) -> Mapping[str, str]:
        """Values of planner settings in the session, outside all hint sets.

        Args:
            settings: names of ``client.planner_settings``; those that the server's version does
                not know are left out.

        Returns:
            Name → value as ``SHOW`` prints it, one that a steering table may name.

        Raises:
            ServerConnectionError: the server cannot be reached.
            ServerError: it refused to tell, or told what is no value of that setting.
        """
        try:
            rows = self._session.execute(_IN_FORCE, [sorted(settings)])
        except psycopg2.Error as error:
            raise refusal(error) from None
        for name, value in rows:
            if name not in SETTINGS or not SETTINGS[name].is_value(value):
                raise ServerError(f"{name:.80} = {value!r:.80} is no planner setting's value")
        return dict(rows)

    def analyze(
        self, verdict: ReadOnlyVerdict, hint_set: HintSet, *, timeout_s: float
    ) -> str | None:
        """Run the statement with its steps' rows counted, and throw its answer away.

        Args:
            verdict: of a read-only statement.
            hint_set: the arm.
            timeout_s: for the run, in (0, 86400].

        Returns:
            The plan as JSON, with estimated and actual rows; it holds the statement's constants.
            None where the time-out came first.

        Raises:
            ValueError: the verdict refuses the statement, or the time-out is out of bounds.
            KnobError: the hint set is not of the catalogue.
            ServerConnectionError: the server cannot be reached, or was lost.
            ServerError: it refused.
        """
        self._check(verdict, [hint_set], [timeout_s])
        # TIMING OFF: reading the clock at each step can take longer than the step.
        options = "ANALYZE, FORMAT JSON, VERBOSE, SETTINGS, TIMING OFF, BUFFERS OFF"
        try:
            with self._session.snapshot(), self._arm(hint_set, timeout_s):
                rows = self._session.execute(
                    f"EXPLAIN ({options}) {verdict.statement}", timeout_s=timeout_s
                )
        except pgerrors.QueryCanceled:
            return None
        except psycopg2.Error as error:
            raise refusal(error) from None
        return str(rows[0][0])

    # -- inside -------------------------------------------------------------------------------

    def _check(
        self, verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet], timeouts_s: Sequence[float]
    ) -> None:
        if not verdict.is_read_only:
            raise ValueError(f"only read-only statements are tried: {verdict.refusal}")
        for timeout_s in timeouts_s:
            if not 0 < timeout_s <= MAX_TIMEOUT_S:
                raise ValueError(f"a time-out of {timeout_s} s is not in (0, {MAX_TIMEOUT_S:g}]")
        for hint_set in hint_sets:
            self._catalog.check(hint_set)

    def _arm(self, hint_set: HintSet, timeout_s: float) -> Any:
        timeout_ms = math.ceil(timeout_s * 1000)
        limits = {
            # Waiting for a lock must not look like a slow plan.
            "lock_timeout": min(_LOCK_TIMEOUT_MS, max(timeout_ms // 2, 1)),
            "statement_timeout": timeout_ms,
        }
        return self._session.arm(
            [*hint_set.settings.items(), *((name, str(ms)) for name, ms in limits.items())]
        )

    def _explained(
        self,
        verdict: ReadOnlyVerdict,
        hint_set: HintSet,
        timeout_s: float,
        options: str = "FORMAT JSON, VERBOSE, SETTINGS",
    ) -> str | None:
        with self._arm(hint_set, timeout_s):
            try:
                rows = self._session.execute(
                    f"EXPLAIN ({options}) {verdict.statement}",
                    timeout_s=timeout_s,
                )
            except pgerrors.QueryCanceled:
                return None
        return str(rows[0][0])

    def _sizes(self, answers: Sequence[str]) -> RelationSizes:
        wanted = sorted(set().union(*(relations(read_plan(answer)) for answer in answers)))
        if not wanted:
            return {}
        names = [list(column) for column in zip(*wanted, strict=True)]
        return {
            (schema, name): RelationSize(rows, size_bytes)
            for schema, name, rows, size_bytes in self._session.execute(_SIZES, names)
        }

    def _run(self, verdict: ReadOnlyVerdict, hint_set: HintSet, timeout_s: float) -> PlanRun:
        answer = Answer(self._max_answer_bytes)
        with self._arm(hint_set, timeout_s):
            started_s = time.perf_counter()
            try:
                self._session.copy_out(verdict.statement, answer.sink, timeout_s=timeout_s)
            except AnswerTooLargeError:
                latency_s = time.perf_counter() - started_s
                self._session.abandon()
                return self._too_large(latency_s)
            except psycopg2.Error as error:
                latency_s = time.perf_counter() - started_s
                return _broken_off(error, latency_s, timeout_s)
            latency_s = time.perf_counter() - started_s
        try:
            rows, checksum = answer.sum_up(verdict.ties)
        except AnswerTooLargeError:
            return self._too_large(latency_s)
        return PlanRun(RunOutcome.FINISHED, latency_s, rows, checksum)

    def _too_large(self, latency_s: float) -> PlanRun:
        detail = f"over {self._max_answer_bytes} bytes"
        return PlanRun(RunOutcome.TOO_LARGE, latency_s, detail=detail)


def _broken_off(error: psycopg2.Error, latency_s: float, timeout_s: float) -> PlanRun:
    """What a run is that ended with an error; the session goes on."""
    detail = str(refusal(error))
    if isinstance(error, pgerrors.QueryCanceled) and latency_s >= timeout_s:
        return PlanRun(RunOutcome.TIMED_OUT, timeout_s, detail=detail)
    if isinstance(error, pgerrors.LockNotAvailable):
        return PlanRun(RunOutcome.LOCKED, latency_s, detail=detail)
    if is_transient(detail):
        return PlanRun(RunOutcome.CANCELLED, latency_s, detail=detail)
    return PlanRun(RunOutcome.FAILED, latency_s, detail=detail)
