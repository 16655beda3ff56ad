"""The two configurations that are compared, and how a server is switched between them.

What a session may set is set in the statement's own transaction; what it may not goes into the
scratch server's configuration file. https://www.postgresql.org/docs/current/view-pg-settings.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.db_connector import DatabaseConnector
from backend.domain.knobs import KnobValue
from backend.domain.modes import Arm

MACHINE_KNOBS = frozenset({"huge_pages", "shared_buffers", "io_method", "effective_io_concurrency",
                           "maintenance_io_concurrency"})  # fmt: skip
"""What they do depends on the machine: for an original elsewhere they are not tried here."""
_SETTINGS = "SELECT name, context, boot_val FROM pg_settings WHERE name = ANY(%s)"


@dataclass(frozen=True)
class ArmPlan:
    """How a candidate is tried on one server.

    Args:
        server: arm → entries of the server's configuration.
        session: what the candidate's statements set for themselves.
        needs_restart: whether the arms differ in what only a restart changes.
        left_out: changes that cannot be tried here, and why.
    """

    server: Mapping[Arm, Mapping[str, KnobValue]]
    session: Mapping[str, str]
    needs_restart: bool
    left_out: Mapping[str, str]

    @property
    def is_server_switched(self) -> bool:
        """Whether the arms differ in the server's configuration."""
        return self.server[Arm.INCUMBENT] != self.server[Arm.CANDIDATE]

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the candidate can be tried."""
        return not self.session and not self.is_server_switched


def plan_arms(
    where: DatabaseConnector,
    incumbent: Mapping[str, KnobValue],
    changes: Mapping[str, KnobValue | None],
    *,
    left_out: Mapping[str, str],
    may_configure: bool,
) -> ArmPlan:
    """Plan for the server on which statements are run.

    Args:
        where: a connection with the rights of the role that runs them.
        incumbent: what the original is configured with.
        changes: the candidate; None takes an entry away.
        left_out: changes that are not tried, and why.
        may_configure: whether the server's configuration may be changed: never on a stand-by.

    Raises:
        ServerConnectionError: the server cannot be asked.
    """
    known = {row["name"]: row for row in where.fetch(_SETTINGS, (sorted(changes),))}
    entries, session, out, needs_restart = dict(incumbent), {}, dict(left_out), False
    for name, value in changes.items():
        row = known.get(name)
        if name in out:
            continue
        if row is None:
            out[name] = "the server does not know it"
        elif row["context"] == "user":
            session[name] = row["boot_val"] if value is None else as_text(value)
        elif not may_configure:
            out[name] = "no session may set it, and a stand-by is not configured"
        else:
            needs_restart |= row["context"] == "postmaster"
            if value is None:
                entries.pop(name, None)
            else:
                entries[name] = value
    kept = dict(incumbent) if may_configure else {}
    return ArmPlan(
        {Arm.INCUMBENT: kept, Arm.CANDIDATE: entries if may_configure else kept},
        {name: text for name, text in session.items() if text is not None},
        needs_restart,
        out,
    )


def as_text(value: KnobValue) -> str:
    """A knob's value as SET takes it, in the native unit."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
