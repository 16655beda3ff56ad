"""What happens to each statement of an engine, where SQLAlchemy hands it to the driver.

A statement is handed on as it came, unless it belongs to a class of the steering table, or the one
before it in the same transaction was steered. Nothing here may fail a statement: what goes wrong is
logged once, and the statement goes on as it came.

The hooks are the dialect's ``do_execute`` and its kin
(https://docs.sqlalchemy.org/en/20/core/events.html#sqlalchemy.events.DialectEvents), not the
engine's cursor events: those would cost each statement some 5 microseconds where there is nothing
to say, and would show the application's own listeners and errors another text than it wrote.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.engine import Engine

from .choosing import Choice, Chooser
from .sampling import Sampler
from .statements import HINT_COMMENT
from .timings import Outcome, Recorder

KEY = "query_steering"
"""In `Connection.info`: the choice whose settings may be in force in the open transaction."""
_IDLE, _IN_TRANSACTION = 0, 2
"""libpq's transaction status; 1 is busy, 3 an aborted transaction, 4 a lost connection."""
_QUERY_CANCELED = "57014"
_OUR_FAULT = ("22023", "25", "42", "53", "54", "55", "XX")
"""SQLSTATEs, or how they begin, after which a class is given up: values and functions that the
server refuses, resources that the plan does not get, and errors of the server itself."""

logger = logging.getLogger(__package__)


class _Message(NamedTuple):
    """What is sent instead of a statement: with what in front of it, and for whom.

    ``choice`` is the statement's class, if it has one, and ``is_steered``, whether its settings
    are to be in force; ``in_transaction``, whether they outlive the message.
    """

    prefix: str
    choice: Choice | None
    is_steered: bool
    in_transaction: bool


class StatementRewriter:
    """Rewrites the statements of one engine.

    Args:
        chooser: what to do until `use` is called.
        recorder: takes the timings.
        sampler: takes samples of statements; None: nobody wants any.
        default_share: share of a class's executions, in [0, 1], that runs the default plan.
        random_numbers: decides which.
        comments: hints go into a comment for pg_hint_plan; else into a message of psycopg2.
    """

    def __init__(
        self,
        chooser: Chooser,
        recorder: Recorder,
        sampler: Sampler | None,
        *,
        default_share: float,
        random_numbers: random.Random,
        comments: bool,
    ) -> None:
        self._chooser = chooser
        self._recorder = recorder
        self._sampler = sampler
        self._default_share = default_share
        self._random = random_numbers
        self._message = self._comment if comments else self._settings
        self._has_steered = False
        self._told = False

    def listen_to(self, engine: Engine) -> None:
        """Begin."""
        event.listen(engine, "do_execute", self._do_execute)
        event.listen(engine, "do_execute_no_params", self._do_execute_no_params)
        event.listen(engine, "do_executemany", self._do_executemany)

    def use(self, chooser: Chooser) -> None:
        """From the next statement on, ask this chooser."""
        self._chooser = chooser

    # -- the hooks: True says that the statement has been executed ---------------------------------

    def _do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        chooser, sampler = self._chooser, self._sampler
        if chooser.is_idle and not self._has_steered:
            return sampler is not None and sampler.execute(cursor, statement, parameters, context)
        message = None
        try:
            choice = chooser.choose(statement)
            in_force = context.root_connection.info.get(KEY) if self._has_steered else None
            if choice is not None or in_force is not None:
                message = self._message(cursor, statement, context, choice, in_force)
        except Exception:
            self._tell_once()
        if message is None:
            return sampler is not None and sampler.execute(cursor, statement, parameters, context)
        info = context.root_connection.info
        if message.is_steered and message.in_transaction:
            self._has_steered = True
            info[KEY] = message.choice
        begun_s = time.perf_counter()
        try:
            context.dialect.do_execute(cursor, message.prefix + statement, parameters, context)
        except BaseException as error:
            # The server has undone what came with the statement; what was in force before it may
            # be so again after a ROLLBACK TO SAVEPOINT.
            info[KEY] = in_force
            self._note_failure(message, error, time.perf_counter() - begun_s)
            raise
        seconds = time.perf_counter() - begun_s
        if message.choice is not None:
            self._recorder.add(message.choice.entry, message.is_steered, "done", seconds)
        if sampler is not None:
            sampler.note(cursor, statement, context, seconds, len(message.prefix))
        if in_force is not None and not message.is_steered:
            info.pop(KEY, None)
        return True

    def _do_execute_no_params(self, cursor: Any, statement: str, context: Any) -> bool:
        self._restore_before(context)
        return False

    def _do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        self._restore_before(context)
        return False

    # -- what to send ------------------------------------------------------------------------------

    def _comment(
        self,
        cursor: Any,
        statement: str,
        context: Any,
        choice: Choice | None,
        in_force: Choice | None,
    ) -> _Message | None:
        """A comment for pg_hint_plan in front of the statement."""
        if choice is None or getattr(cursor, "name", None) is not None:
            return None
        is_steered = self._draws_steered(choice)
        return _Message(choice.messages.comment if is_steered else "", choice, is_steered, False)

    def _settings(
        self,
        cursor: Any,
        statement: str,
        context: Any,
        choice: Choice | None,
        in_force: Choice | None,
    ) -> _Message | None:
        """Settings, or what puts them back, in the message of the statement."""
        if cursor.name is not None or HINT_COMMENT in statement:
            # A text that becomes part of another, or is read from its first character on by
            # pg_hint_plan: nothing may stand in front of it.
            self._restore_before(context)
            return None
        session = cursor.connection
        status = session.get_transaction_status()
        if status == _IDLE:
            # If there was a transaction, it has ended, and the settings with it.
            in_force = None
        elif status != _IN_TRANSACTION:
            return None
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
        return _Message(prefix, choice, is_steered, in_transaction)

    def _draws_steered(self, choice: Choice) -> bool:
        return choice.entry.mode == "pin" or self._random.random() >= self._default_share

    def _restore_before(self, context: Any) -> None:
        """Put settings back in a message of their own, where they may be in force."""
        if not self._has_steered:
            return
        try:
            connection = context.root_connection
            in_force = connection.info.get(KEY)
            session = connection.connection.dbapi_connection
            if in_force is None or session.get_transaction_status() != _IN_TRANSACTION:
                return
            with session.cursor() as cursor:
                cursor.execute(in_force.messages.restore)
            connection.info.pop(KEY, None)
        except Exception:
            self._tell_once()

    # -- what came of it ---------------------------------------------------------------------------

    def _note_failure(self, message: _Message, error: BaseException, seconds: float) -> None:
        if message.choice is None:
            return
        state = str(getattr(error, "pgcode", None) or getattr(error, "sqlstate", None) or "")
        is_error = isinstance(error, Exception)
        cancelled = state == _QUERY_CANCELED or not is_error
        outcome: Outcome = "cancelled" if cancelled else "failed"
        self._recorder.add(message.choice.entry, message.is_steered, outcome, seconds)
        if message.is_steered and is_error and state.startswith(_OUR_FAULT):
            self._chooser.give_up(message.choice)
            logger.warning(
                "statements of class %s are steered no more until their entry changes: one failed "
                "with SQLSTATE %s",
                message.choice.entry.fingerprint,
                state,
            )

    def _tell_once(self) -> None:
        if not self._told:
            self._told = True
            logger.exception("steering failed, the statement did not; more of this is not told")
