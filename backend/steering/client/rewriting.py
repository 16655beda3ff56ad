"""What happens around each statement of an engine: SQLAlchemy's cursor events.

A statement is handed on as it came, unless it belongs to a class of the steering table, or the one
before it in the same transaction was steered. Nothing here may fail a statement: what goes wrong is
logged once, and the statement goes on as it came.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection, ExceptionContext

from .choosing import Choice, Chooser
from .statements import HINT_COMMENT
from .timings import Outcome, Recorder

KEY = "query_steering"
"""In `Connection.info`: the choice whose settings may be in force in the open transaction."""
_EXECUTION = "_query_steering_execution"
_IDLE, _IN_TRANSACTION = 0, 2
"""libpq's transaction status; 1 is busy, 3 an aborted transaction, 4 a lost connection."""
_QUERY_CANCELED = "57014"
_OUR_FAULT = ("22023", "25", "42", "53", "54", "55", "XX")
"""SQLSTATEs, or how they begin, after which a class is given up: values and functions that the
server refuses, resources that the plan does not get, and errors of the server itself."""

logger = logging.getLogger(__package__)


@dataclass
class _Execution:
    """A statement on its way that is measured, or in front of which something was put."""

    statement: str
    is_rewritten: bool
    choice: Choice | None
    is_steered: bool
    in_force_before: Choice | None
    begun_s: float = 0.0


class StatementRewriter:
    """Rewrites the statements of one engine.

    Args:
        chooser: what to do until `use` is called.
        recorder: takes the timings.
        default_share: share of a class's executions, in [0, 1], that runs the default plan.
        random_numbers: decides which.
        comments: hints go into a comment for pg_hint_plan; else into a message of psycopg2.
    """

    def __init__(
        self,
        chooser: Chooser,
        recorder: Recorder,
        *,
        default_share: float,
        random_numbers: random.Random,
        comments: bool,
    ) -> None:
        self._chooser = chooser
        self._recorder = recorder
        self._default_share = default_share
        self._random = random_numbers
        self._comments = comments
        self._has_steered = False
        self._told = False

    def use(self, chooser: Chooser) -> None:
        """From the next statement on, ask this chooser."""
        self._chooser = chooser

    # -- before ------------------------------------------------------------------------------------

    def before_cursor_execute(
        self,
        connection: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        executemany: bool,
    ) -> tuple[str, Any]:
        """Return the statement to send, and its parameters, which are never touched."""
        chooser = self._chooser
        if chooser.is_idle and not self._has_steered:
            return statement, parameters
        try:
            choice = chooser.choose(statement)
            in_force = connection.info.get(KEY) if self._has_steered else None
            if choice is None and in_force is None:
                return statement, parameters
            if executemany or (context.no_parameters and not parameters):
                choice = None
            if self._comments:
                execution, sent = self._with_comment(cursor, statement, choice)
            elif executemany or cursor.name is not None or HINT_COMMENT in statement:
                # A text that is repeated, becomes part of another, or is read from its first
                # character on by pg_hint_plan: nothing may stand in front of it.
                self._restore(connection, cursor.connection, in_force)
                return statement, parameters
            else:
                execution, sent = self._with_message(
                    connection, cursor.connection, statement, choice, in_force
                )
            if execution is not None:
                setattr(context, _EXECUTION, execution)
                execution.begun_s = time.perf_counter()
            return sent, parameters
        except Exception:
            self._tell_once()
            return statement, parameters

    def _with_comment(
        self, cursor: Any, statement: str, choice: Choice | None
    ) -> tuple[_Execution | None, str]:
        """Put a comment for pg_hint_plan in front."""
        if choice is None or getattr(cursor, "name", None) is not None:
            return None, statement
        is_steered = self._draws_steered(choice)
        sent = choice.messages.comment + statement if is_steered else statement
        return _Execution(statement, is_steered, choice, is_steered, None), sent

    def _with_message(
        self,
        connection: Connection,
        session: Any,
        statement: str,
        choice: Choice | None,
        in_force: Choice | None,
    ) -> tuple[_Execution | None, str]:
        """Put settings, or what puts them back, in front of the statement, in the same message."""
        status = session.get_transaction_status()
        if status == _IDLE:
            # If there was a transaction, it has ended, and the settings with it.
            in_force = None
        elif status != _IN_TRANSACTION:
            return None, statement
        is_steered = choice is not None and self._draws_steered(choice)
        wanted = choice if is_steered else None
        in_transaction = status == _IN_TRANSACTION or not session.autocommit
        prefix = ""
        if wanted is not in_force:
            if in_force is not None:
                prefix = in_force.messages.restore
            if wanted is not None:
                messages = wanted.messages
                prefix += messages.in_transaction if in_transaction else messages.in_autocommit
        if in_transaction and wanted is not None:
            self._has_steered = True
            connection.info[KEY] = wanted
        return _Execution(statement, bool(prefix), choice, is_steered, in_force), prefix + statement

    def _restore(self, connection: Connection, session: Any, in_force: Choice | None) -> None:
        """Put settings back in a message of their own."""
        if in_force is not None and session.get_transaction_status() == _IN_TRANSACTION:
            with session.cursor() as cursor:
                cursor.execute(in_force.messages.restore)
            connection.info.pop(KEY, None)

    def _draws_steered(self, choice: Choice) -> bool:
        return choice.entry.mode == "pin" or self._random.random() >= self._default_share

    # -- after -------------------------------------------------------------------------------------

    def after_cursor_execute(
        self,
        connection: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        executemany: bool,
    ) -> None:
        """Note the time of a statement that ended well, and what is in force now."""
        execution = getattr(context, _EXECUTION, None)
        if execution is None:
            return
        seconds = time.perf_counter() - execution.begun_s
        setattr(context, _EXECUTION, None)
        try:
            if not execution.is_steered and self._has_steered:
                connection.info.pop(KEY, None)
            self._record(execution, "done", seconds)
        except Exception:
            self._tell_once()

    def handle_error(self, error: ExceptionContext) -> None:
        """Note a statement that failed, and let its error show the application's own text."""
        context = error.execution_context
        execution = getattr(context, _EXECUTION, None)
        if execution is None:
            return
        seconds = time.perf_counter() - execution.begun_s
        setattr(context, _EXECUTION, None)
        try:
            self._note_failure(error, execution, seconds)
        except Exception:
            self._tell_once()

    def _note_failure(self, error: ExceptionContext, execution: _Execution, seconds: float) -> None:
        connection = error.connection
        if self._has_steered and connection is not None and not error.is_disconnect:
            # The server has undone what came with the statement. What was in force before it may
            # be so again after a ROLLBACK TO SAVEPOINT.
            connection.info[KEY] = execution.in_force_before
        if execution.is_rewritten and error.sqlalchemy_exception is not None:
            error.sqlalchemy_exception.statement = execution.statement
        original = error.original_exception
        state = str(getattr(original, "pgcode", None) or getattr(original, "sqlstate", None) or "")
        is_error = isinstance(original, Exception)
        if execution.is_steered and is_error and state.startswith(_OUR_FAULT):
            self._give_up(execution, state)
        cancelled = state == _QUERY_CANCELED or not is_error
        self._record(execution, "cancelled" if cancelled else "failed", seconds)

    def _give_up(self, execution: _Execution, state: str) -> None:
        if execution.choice is not None:
            self._chooser.give_up(execution.choice)
            logger.warning(
                "statements of class %s are steered no more until the table changes: one failed "
                "with SQLSTATE %s",
                execution.choice.entry.fingerprint,
                state,
            )

    def _tell_once(self) -> None:
        if not self._told:
            self._told = True
            logger.exception("steering failed, the statement did not; more of this is not told")

    def _record(self, execution: _Execution, outcome: Outcome, seconds: float) -> None:
        if execution.choice is not None:
            self._recorder.add(execution.choice.entry, execution.is_steered, outcome, seconds)
