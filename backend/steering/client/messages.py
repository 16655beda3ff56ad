"""What is put in front of a steered statement, in the same message.

Inside a transaction:

    SELECT set_config('enable_nestloop', 'off', true), set_config('query_steering.active', id, true)
     WHERE current_setting('enable_nestloop') = 'on' AND current_setting('search_path') = ...;
    the statement

and in front of the next statement of that transaction, whatever it is:

    SELECT set_config('enable_nestloop', 'on', true), set_config('query_steering.active', '', true)
     WHERE current_setting('query_steering.active') = id;

``set_config(..., true)`` is SET LOCAL that can be told a condition, and the server alone knows
whether it holds: a session may have its own settings from the role, the database, a pooler or a
statement that nobody saw. So only values known to be in force are replaced, and what is put back is
exactly what was there; where nothing was replaced, nothing is put back. Nothing outlives the
transaction (https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SET).

In autocommit mode the message is one implicit transaction, and its end puts everything back
(https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .table import SteeringEntry

ACTIVE = "query_steering.active"
"""A parameter of the transaction: the fingerprint of the class whose settings are in force."""
TAG = "/* autopilot */"
"""By this the product knows its own statements in pg_stat_statements and leaves them out."""


@dataclass(frozen=True)
class Messages:
    """The texts for one entry; each ends where the statement begins, none holds a ``%``."""

    in_transaction: str
    in_autocommit: str
    restore: str
    comment: str


def messages_for(entry: SteeringEntry) -> Messages:
    """Write the texts for an entry, whose values are checked (see `SteeringEntry`)."""
    in_force = [_is(name, value) for name, value in entry.under.items()]
    in_force.append(_is("search_path", entry.search_path))
    before = {name: entry.under[name] for name in entry.settings}
    return Messages(
        in_transaction=_set({**entry.settings, ACTIVE: entry.fingerprint}, in_force),
        in_autocommit=_set(entry.settings, in_force),
        restore=_set({**before, ACTIVE: ""}, [_is(ACTIVE, entry.fingerprint)]),
        comment=_hint_comment(entry.settings),
    )


def _set(values: Mapping[str, str], conditions: list[str]) -> str:
    # The line break keeps the server's "LINE n" pointing at a line of the application's own.
    sets = (f"pg_catalog.set_config({_literal(n)}, {_literal(v)}, true)" for n, v in values.items())
    return f"SELECT {TAG} {', '.join(sets)} WHERE {' AND '.join(conditions)};\n"


def _is(name: str, value: str) -> str:
    # An unknown setting is NULL here, so an older server does not fail: it is left alone.
    return (
        f"pg_catalog.current_setting({_literal(name)}, true) OPERATOR(pg_catalog.=) "
        f"{_literal(value)}"
    )


def _literal(text: str) -> str:
    """A quoted literal; the table lets neither a backslash nor a control character pass."""
    return "'" + text.replace("'", "''") + "'"


def _hint_comment(settings: Mapping[str, str]) -> str:
    """The settings for pg_hint_plan, which reads them from a comment in front of the statement."""
    return f"/*+ {' '.join(f'Set({name} {value})' for name, value in settings.items())} */ "
