"""What to do about a connection that did not come about, from libpq's or the server's words.

The words are matched in English, as libpq and a server whose lc_messages is English or C say them;
others get the general remedy. https://www.postgresql.org/docs/current/libpq-ssl.html
"""

from __future__ import annotations

import re

GENERAL = "check address, user and password, and that the server is up"

_TELL_IT = (
    "give the password in ~/.pgpass (mode 0600, a line host:port:database:user:password), in "
    "PGPASSWORD, or in AUTOPILOT_DATABASE__PASSWORD"
)
_REMEDIES: tuple[tuple[str, str], ...] = (
    (r"no password supplied|empty password", _TELL_IT),
    (
        r"password authentication failed|password retrieved from file",
        f"wrong password: {_TELL_IT}",
    ),
    (
        r"no pg_hba\.conf entry.*no encryption",
        "the server may insist on TLS: set sslmode=require (PGSSLMODE), better verify-full; else "
        "ask for a line in its pg_hba.conf",
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "ask for a line in the server's pg_hba.conf that lets this role in from this machine to "
        "the tuned database and to database postgres (for the one-tuner lock)",
    ),
    (
        r"server does not support SSL",
        "the server offers no TLS: turn ssl on there, or set sslmode=disable (PGSSLMODE) where "
        "the network between is trusted",
    ),
    (
        r"root certificate file .* does not exist",
        "name the file of the authority's certificate in sslrootcert (PGSSLROOTCERT); "
        "sslrootcert=system takes the machine's authorities",
    ),
    (
        r"certificate verify failed|self[- ]signed certificate|unable to get local issuer",
        "the server's certificate was not issued by an authority in sslrootcert (PGSSLROOTCERT), "
        "or has run out: name the right authority's file",
    ),
    (
        r"server certificate for .* does not match host name",
        "connect by a name that stands in the certificate, or set sslmode=verify-ca, which does "
        "not compare names",
    ),
    (
        r"private key file .* has group or world access",
        "chmod 600 the file that sslkey (PGSSLKEY) names",
    ),
    (
        r"requires a valid client certificate|client certificate",
        "name the client's certificate and key in sslcert and sslkey (PGSSLCERT, PGSSLKEY)",
    ),
    (r"definition of service", "name the file that the service is in as PGSERVICEFILE"),
    (r"could not translate host name", "check the host's name, and the machine's name resolution"),
    (
        r"Connection refused|No such file or directory",
        "check host and port, that the server is up, and that its listen_addresses lets this "
        "machine in",
    ),
    (
        r"No route to host|Network is unreachable|timed out|timeout expired",
        "nothing answers there: check host and port, that the machine is up, and that routes and "
        "firewalls between let this one through",
    ),
    (
        r'database ".*" does not exist',
        "check the name of the database: in the URL, PGDATABASE or database.dbname; where none of "
        "them says it, it is shop",
    ),
    (r'role ".*" does not exist', "make the role: run.py grants prints its SQL"),
    (r"is not permitted to log in", "ALTER ROLE ... LOGIN for this role"),
    (
        r'permission denied for database "postgres"',
        "the one-tuner lock is held in database postgres: GRANT CONNECT ON DATABASE postgres to "
        "the role (run.py grants prints it)",
    ),
    (r"permission denied for database", "GRANT CONNECT ON DATABASE to the role"),
    (
        r"too many connections|remaining connection slots|sorry, too many clients",
        "the tuner needs 3 connections and the watchdog 2: raise the role's CONNECTION LIMIT or "
        "the server's max_connections, or end idle sessions",
    ),
    (
        r"session is read-only|not in hot standby|session is not read-only",
        "target_session_attrs (PGTARGETSESSIONATTRS) asks for another kind of server",
    ),
)
_COMPILED = tuple((re.compile(words, re.IGNORECASE), remedy) for words, remedy in _REMEDIES)


def connection_remedy(message: str) -> str:
    """The remedy for a connection that failed with this message, in one line."""
    return next((remedy for words, remedy in _COMPILED if words.search(message)), GENERAL)
