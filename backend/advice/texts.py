"""Text to copy: one setting as SQL, as a line of postgresql.conf, as a managed service takes it.

Whoever copies it decides; nothing here is run. What stands in the way of a form is told with it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backend.advice.quoting import sql_identifier, sql_value
from backend.catalog.entries import entry_text
from backend.domain.knobs import Knob, KnobValue
from backend.domain.server import KnobReading
from backend.targets.postgresql_lookup import AWS_RDS, AZURE, GOOGLE_CLOUD_SQL, Rights
from backend.targets.postgresql_privileges import FIRST_WITH_PARAMETER_GRANTS
from backend.targets.postgresql_privileges import alter_system as grant_alter_system

RDS_MOST = 20
"""Parameters that one call of the RDS interface takes."""
ALTER_SYSTEM, ALTER_DATABASE, ALTER_ROLE = "ALTER SYSTEM", "ALTER DATABASE", "ALTER ROLE"
CONFIGURATION_FILE = "postgresql.conf"

_SERVICE_NOTES = {
    AWS_RDS: "Numbers are in the parameter's own unit. A default parameter group cannot be "
    "changed: make one of your own. On Aurora most parameters stand in the cluster's group "
    "(modify-db-cluster-parameter-group).",
    GOOGLE_CLOUD_SQL: "This sets ALL flags of the instance: those that the line does not name go "
    "back to their defaults, so add the ones you have (gcloud sql instances describe). Some flags "
    "restart the instance; one that the service does not offer is refused.",
    AZURE: "Numbers are in the parameter's own unit. A parameter that the service does not let "
    "customers change is refused.",
}


@dataclass(frozen=True)
class CopyText:
    """One way to make a change.

    Args:
        form: which way.
        text: to copy.
        undo: what takes it back; empty where that is not a text of the same form.
        note: what to know first.
        obstacle: why it would be refused here; empty where nothing is known against it.
    """

    form: str
    text: str
    undo: str = ""
    note: str = ""
    obstacle: str = ""


@dataclass(frozen=True)
class Place:
    """Where a setting would be made.

    Args:
        rights: what our role may do.
        version: the server's, as ``server_version_num``.
        role: whose statements weigh most; empty where nobody knows.
        sees_entries: whether ``KnobReading.entry`` can be trusted to be None.
    """

    rights: Rights
    version: int
    role: str = ""
    sees_entries: bool = True


def texts(knob: Knob, value: KnobValue, reading: KnobReading, place: Place) -> tuple[CopyText, ...]:
    """All ways to set a knob to a value, the server's own first.

    Args:
        knob: which one.
        value: in its native unit.
        reading: how it stands.
        place: where.
    """
    return (
        _alter_system(knob, value, reading, place),
        *_alter_others(knob, value, place),
        _configuration_line(knob, value, reading, place),
        *services([(knob, value)], place.rights.managed_by),
    )


def together(
    changes: Sequence[tuple[Knob, KnobValue]], managed_by: str = "", obstacle: str = ""
) -> tuple[CopyText, ...]:
    """Several changes at once.

    Args:
        changes: knobs with their new values.
        managed_by: as in :class:`Rights`.
        obstacle: to ALTER SYSTEM.
    """
    if not changes:
        return ()
    sql = [_set(ALTER_SYSTEM, knob, value) for knob, value in changes]
    lines = [_line(knob, value) for knob, value in changes]
    undo = [f"ALTER SYSTEM RESET {knob.name};" for knob, _ in changes]
    reload = "SELECT pg_reload_conf();"
    return (
        CopyText(
            ALTER_SYSTEM,
            "\n".join([*sql, reload]),
            "\n".join([*undo, reload]),
            "To undo entries that stood there before, see the single settings.",
            obstacle,
        ),
        CopyText(CONFIGURATION_FILE, "\n".join(lines)),
        *services(changes, managed_by),
    )


def services(
    changes: Sequence[tuple[Knob, KnobValue]], managed_by: str = ""
) -> tuple[CopyText, ...]:
    """The changes as managed services take them: as that one does, or each where none is known."""
    forms = (_rds_text(changes), _cloud_sql_text(changes), _azure_text(changes))
    return tuple(one for one in forms if managed_by in ("", one.form))


# -- SQL and file ---------------------------------------------------------------------------------


def _alter_system(knob: Knob, value: KnobValue, reading: KnobReading, place: Place) -> CopyText:
    if reading.entry is not None:
        undo = f"ALTER SYSTEM SET {knob.name} = '{_escaped(reading.entry)}';"
    elif place.sees_entries:
        undo = f"ALTER SYSTEM RESET {knob.name};"
    else:  # there may have been an entry that we cannot see
        undo = _set(ALTER_SYSTEM, knob, reading.value)
    notes = [_activation(knob)]
    if reading.override:
        notes.append(f"It does not act where {reading.override} wins over it.")
    if place.rights.in_recovery:
        notes.append("A stand-by's settings are its own: this is not the primary's.")
    return CopyText(
        ALTER_SYSTEM,
        _set(ALTER_SYSTEM, knob, value),
        undo,
        " ".join(notes),
        _system_obstacle(knob, reading, place),
    )


def _system_obstacle(knob: Knob, reading: KnobReading, place: Place) -> str:
    rights = place.rights
    if rights.managed_by:
        return f"{rights.managed_by} keeps ALTER SYSTEM to itself: use its own parameters below"
    if rights.alter_system_off:
        return (
            "allow_alter_system is off: whoever manages the server wants changes made in its "
            "configuration files"
        )
    if reading.may_alter:
        return ""
    role = sql_identifier(rights.role)
    if place.version < FIRST_WITH_PARAMETER_GRANTS:
        return f"role {role} may not: before version 15 a superuser is needed"
    return f"role {role} may not: run it as a superuser, or grant it: " + grant_alter_system(
        rights.role, [knob.name]
    )


def _alter_others(knob: Knob, value: KnobValue, place: Place) -> Iterator[CopyText]:
    """For a role or a database, where the knob can differ between sessions."""
    if knob.context != "session":
        return
    obstacle = ""
    if place.rights.in_recovery:
        obstacle = "a stand-by takes no writes: run it on the primary, it then holds on both"
    elif knob.name not in place.rights.set_value:
        obstacle = "needs a superuser, or (version 15 on) GRANT SET ON PARAMETER"
    role = sql_identifier(place.role) if place.role else "your_role"
    for form, name, whose in (
        (ALTER_DATABASE, sql_identifier(place.rights.database), "the database's owner"),
        (ALTER_ROLE, role, "that role itself, or one that may alter it"),
    ):
        yield CopyText(
            form,
            f"{form} {name} SET {knob.name} = {sql_value(knob, value)};",
            f"{form} {name} RESET {knob.name};",
            f"For {whose} to run; acts in new sessions.",
            obstacle,
        )


def _configuration_line(
    knob: Knob, value: KnobValue, reading: KnobReading, place: Place
) -> CopyText:
    obstacle = ""
    if place.rights.managed_by:
        obstacle = f"the files are {place.rights.managed_by}'s own"
    elif reading.entry is not None:
        obstacle = "postgresql.auto.conf has an entry of its own, which wins over this line"
    return CopyText(
        CONFIGURATION_FILE, _line(knob, value), note=_activation(knob), obstacle=obstacle
    )


def _activation(knob: Knob) -> str:
    if knob.context == "restart":
        return "Acts after a restart of the server."
    return "Acts after SELECT pg_reload_conf();"


def _set(command: str, knob: Knob, value: KnobValue) -> str:
    return f"{command} SET {knob.name} = {sql_value(knob, value)};"


def _line(knob: Knob, value: KnobValue) -> str:
    return f"{knob.name} = {sql_value(knob, value)}"


def _escaped(entry: str) -> str:
    """An entry as it stands in the server's file, as the inside of a constant in one line."""
    return "".join(c if c.isprintable() else " " for c in entry).replace("'", "''")


# -- services -------------------------------------------------------------------------------------


def _rds_text(changes: Sequence[tuple[Knob, KnobValue]]) -> CopyText:
    commands = [
        _command(
            "aws rds modify-db-parameter-group --db-parameter-group-name YOUR_PARAMETER_GROUP "
            "--parameters",
            *(_rds(knob, value) for knob, value in changes[start : start + RDS_MOST]),
        )
        for start in range(0, len(changes), RDS_MOST)
    ]
    return CopyText(AWS_RDS, "\n".join(commands), note=_SERVICE_NOTES[AWS_RDS])


def _cloud_sql_text(changes: Sequence[tuple[Knob, KnobValue]]) -> CopyText:
    flags = ",".join(f"{knob.name}={entry_text(value)}" for knob, value in changes)
    return CopyText(
        GOOGLE_CLOUD_SQL,
        _command("gcloud sql instances patch YOUR_INSTANCE", f"--database-flags={flags}"),
        note=_SERVICE_NOTES[GOOGLE_CLOUD_SQL],
    )


def _azure_text(changes: Sequence[tuple[Knob, KnobValue]]) -> CopyText:
    commands = [
        _command(
            "az postgres flexible-server parameter set --resource-group YOUR_GROUP "
            "--server-name YOUR_SERVER",
            "--name", knob.name, "--value", entry_text(value),
        )
        for knob, value in changes
    ]  # fmt: skip
    restart = any(knob.context == "restart" for knob, _ in changes)
    told = " Then restart: az postgres flexible-server restart." if restart else ""
    return CopyText(AZURE, "\n".join(commands), note=_SERVICE_NOTES[AZURE] + told)


def _rds(knob: Knob, value: KnobValue) -> str:
    written = str(int(value)) if isinstance(value, bool) else entry_text(value)
    method = "pending-reboot" if knob.context == "restart" else "immediate"
    return f"ParameterName={knob.name},ParameterValue={written},ApplyMethod={method}"


def _command(beginning: str, *arguments: str) -> str:
    """A line for a shell; the arguments are quoted where they need it."""
    return " ".join([beginning, *map(shlex.quote, arguments)])
