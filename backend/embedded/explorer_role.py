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
from backend.targets.postgresql_privileges import EXPLORER_TEMP_FILE_LIMIT, explorer_grants

PASSWORD_FILE = "explorer-password"  # nosec B105


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
        limit = f"temp_file_limit={EXPLORER_TEMP_FILE_LIMIT}"
        cursor.execute(
            "SELECT %s = ANY(COALESCE(rolconfig, '{}')) FROM pg_catalog.pg_roles"
            " WHERE rolname = %s",
            (limit, EXPLORER_ROLE),
        )
        found = cursor.fetchone()
        exists, is_limited = found is not None, found == (True,)
        if exists and is_limited and known:
            return
        # Made here, so that no log of the server can show the password.
        verifier = extensions.encrypt_password(
            password, EXPLORER_ROLE, scope=cursor.connection, algorithm="scram-sha-256"
        )
        login = sql.SQL("ALTER ROLE {role} LOGIN PASSWORD {verifier};").format(
            role=sql.Identifier(EXPLORER_ROLE), verifier=sql.Literal(verifier)
        )
        creation = sql.SQL("CREATE ROLE {role};").format(role=sql.Identifier(EXPLORER_ROLE))
        grants = map(sql.SQL, explorer_grants(EXPLORER_ROLE, cursor.connection.server_version))
        # One message is one transaction: there is never half a role.
        cursor.execute(sql.SQL(" ").join([*([] if exists else [creation]), login, *grants]))
    if not known:  # last: what the file holds is in force
        write_password(home / PASSWORD_FILE, password)
