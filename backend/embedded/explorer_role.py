"""The role of the embedded server under which statements are tried: it may only read.

It may read every table, and keep what it runs out of pg_stat_statements (version 15 on); its
transactions write nothing unless they are told otherwise, and their temporary files are bounded.
https://www.postgresql.org/docs/current/predefined-roles.html
"""

from __future__ import annotations

from pathlib import Path

from psycopg2 import extensions, sql
from sqlalchemy.engine import URL

from backend.db_connector import EXPLORER_ROLE
from backend.embedded.database import setup_cursor
from backend.embedded.files import read_text
from backend.embedded.place import random_password, write_password

PASSWORD_FILE = "explorer-password"  # nosec B105
TEMP_FILE_LIMIT = "2GB"
"""Of temporary files for each process of a session: a plan on trial may not fill the disk."""
_FIRST_VERSION_OF_PARAMETER_GRANTS = 150000


def explorer_address(address: URL, home: Path) -> URL | None:
    """Return an address of the server as that of the role; None as long as there is no role.

    Args:
        address: the server and a database.
        home: the folder of the embedded server, which holds the role's password.
    """
    password = read_text(home / PASSWORD_FILE)
    if not password:
        return None
    return address.set(username=EXPLORER_ROLE, password=password.strip())


def ensure_explorer_role(address: URL, home: Path) -> None:
    """Make the role and its password, where they are missing.

    Args:
        address: the server, with role and password of a superuser; its database is not used.
        home: the folder of the embedded server; the password lies in a file of mode 0600.

    Raises:
        EmbeddedServerError: no connection, or the server refused.
    """
    known = read_text(home / PASSWORD_FILE)
    password = known.strip() if known else random_password()
    with setup_cursor(address, "postgres") as cursor:
        limit = f"temp_file_limit={TEMP_FILE_LIMIT}"
        cursor.execute(
            "SELECT %s = ANY(COALESCE(rolconfig, '{}')) FROM pg_catalog.pg_roles"
            " WHERE rolname = %s",
            (limit, EXPLORER_ROLE),
        )
        found = cursor.fetchone()
        exists, is_limited = found is not None, found == (True,)
        if exists and is_limited and known:
            return
        steps = [] if exists else ["CREATE ROLE {role}"]
        steps += [
            "ALTER ROLE {role} LOGIN PASSWORD {verifier}",
            "ALTER ROLE {role} SET default_transaction_read_only = on",
            "ALTER ROLE {role} SET temp_file_limit = {limit}",
            "GRANT pg_read_all_data TO {role}",
        ]
        if cursor.connection.server_version >= _FIRST_VERSION_OF_PARAMETER_GRANTS:
            steps.append("GRANT SET ON PARAMETER pg_stat_statements.track TO {role}")
        # Made here, so that no log of the server can show the password.
        verifier = extensions.encrypt_password(
            password, EXPLORER_ROLE, scope=cursor.connection, algorithm="scram-sha-256"
        )
        # One message is one transaction: there is never half a role.
        cursor.execute(
            sql.SQL("; ".join(steps)).format(
                role=sql.Identifier(EXPLORER_ROLE),
                verifier=sql.Literal(verifier),
                limit=sql.Literal(TEMP_FILE_LIMIT),
            )
        )
    if not known:  # last: what the file holds is in force
        write_password(home / PASSWORD_FILE, password)
