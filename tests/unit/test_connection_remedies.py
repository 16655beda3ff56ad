"""What fails while connecting is told with what can be done about it."""

from __future__ import annotations

import pytest

from backend.connection_remedies import GENERAL, connection_remedy


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("fe_sendauth: no password supplied", ".pgpass"),
        ('FATAL: password authentication failed for user "x"', "wrong password"),
        (
            'FATAL: no pg_hba.conf entry for host "10.0.0.9", user "x", database "d", '
            "no encryption",
            "sslmode=require",
        ),
        (
            'FATAL: no pg_hba.conf entry for host "10.0.0.9", user "x", database "d", '
            "SSL encryption",
            "pg_hba.conf",
        ),
        ("server does not support SSL, but SSL was required", "offers no TLS"),
        ('root certificate file "/home/ann/.postgresql/root.crt" does not exist', "sslrootcert"),
        ("SSL error: certificate verify failed", "authority"),
        ('server certificate for "db" does not match host name "localhost"', "verify-ca"),
        ('definition of service "shop" not found', "PGSERVICEFILE"),
        ('could not translate host name "nowhere" to address', "name resolution"),
        ("connection to server failed: Connection refused", "listen_addresses"),
        ("connection to server failed: No route to host", "firewalls"),
        ("connection to server failed: Connection timed out", "firewalls"),
        ('FATAL: database "nope" does not exist', "name of the database"),
        ('FATAL: permission denied for database "postgres"', "one-tuner lock"),
        ('FATAL: too many connections for role "x"', "CONNECTION LIMIT"),
        ("something nobody has seen", GENERAL),
    ],
)
def test_the_remedy_fits_the_words(message: str, word: str) -> None:
    assert word in connection_remedy(message)
