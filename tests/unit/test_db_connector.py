"""The connector without a server: tags, arguments, deadlines, and that no password leaks."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from backend.db_connector import (
    STATEMENT_TAG,
    DatabaseConnector,
    is_tagged,
    quoted_identifier,
    tagged,
)
from backend.errors import (
    ConfigError,
    OtherServerError,
    ServerConnectionError,
    UnsupportedServerError,
)

PASSWORD = "s3cret-word"


def connector(port: int = 5432, **options: object) -> DatabaseConnector:
    url = make_url(f"postgresql://tuner:{PASSWORD}@127.0.0.1:{port}/shop?sslmode=disable")
    return DatabaseConnector(url, **options)  # type: ignore[arg-type]


# -- the tag ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", f"SELECT {STATEMENT_TAG} 1"),
        ("\n  with x as (select 1) select", f"\n  with {STATEMENT_TAG} x as (select 1) select"),
        ("ALTER SYSTEM SET a = 1", f"ALTER {STATEMENT_TAG} SYSTEM SET a = 1"),
        ("((SELECT 1))", f"((SELECT {STATEMENT_TAG} 1))"),
        ("SELECT*FROM t", f"SELECT {STATEMENT_TAG}*FROM t"),
    ],
)
def test_tag_stands_behind_the_first_keyword(statement: str, expected: str) -> None:
    # In front of it, PostgreSQL 18 would cut it off before it stores the text.
    assert tagged(statement) == expected


@given(st.text())
def test_a_tagged_statement_is_ours_and_otherwise_unchanged(tail: str) -> None:
    text = tagged(f"SELECT {tail}")
    assert is_tagged(text)
    assert text.replace(f" {STATEMENT_TAG}", "", 1) == f"SELECT {tail}"


@pytest.mark.parametrize("statement", ["", "-- note\nSELECT 1", "/* note */ SELECT 1", "1"])
def test_a_statement_must_begin_with_a_keyword(statement: str) -> None:
    with pytest.raises(ValueError, match="must begin with a keyword"):
        tagged(statement)


def test_an_identifier_cannot_break_out_of_its_quotes() -> None:
    assert quoted_identifier('a"; DROP ROLE b; --') == '"a""; DROP ROLE b; --"'


# -- the arguments ----------------------------------------------------------------------------


def test_another_database_is_refused() -> None:
    with pytest.raises(ConfigError, match="sqlite") as caught:
        DatabaseConnector(make_url("sqlite:///x.db"))
    assert "postgresql://" in str(caught.value)


def test_the_session_gets_its_limits() -> None:
    ours = connector(statement_timeout_ms=1234, lock_timeout_ms=56, application_name="me")
    arguments = ours._connect_arguments()
    options = arguments["options"]
    assert "-c statement_timeout=1234" in options
    assert "-c lock_timeout=56" in options
    assert "-c idle_in_transaction_session_timeout=" in options
    assert "-c search_path=pg_catalog" in options
    assert arguments["application_name"] == "me"
    assert arguments["keepalives"] == 1
    assert arguments["tcp_user_timeout"] > 0
    assert arguments["sslmode"] == "disable"


def test_options_of_the_url_are_kept_and_its_application_name_is_not() -> None:
    url = make_url("postgresql://h/d?options=-c%20geqo%3Doff&application_name=intruder")
    arguments = DatabaseConnector(url, search_path='"a b", c')._connect_arguments()
    assert arguments["options"].startswith("-c geqo=off -c ")
    assert 'search_path="a\\ b",\\ c' in arguments["options"]
    assert arguments["application_name"] == "autopilot_tuner"


def test_a_sibling_differs_in_its_session_settings_alone() -> None:
    ours = connector(statement_timeout_ms=777, session_settings={"geqo": "off"})
    other = ours.sibling(jit="off")
    mine, its = ours._connect_arguments(), other._connect_arguments()
    assert its.pop("options") == f"{mine.pop('options')} -c jit=off"
    assert mine == its


def test_another_database_of_the_server_has_the_same_limits() -> None:
    ours = connector(connect_timeout_s=33, statement_timeout_ms=777)
    other = ours.in_database("postgres")
    assert other.address == "127.0.0.1:5432/postgres"
    assert other._connect_timeout_s == 33
    mine, its = ours._connect_arguments(), other._connect_arguments()
    assert (mine.pop("dbname", None), its.pop("dbname", None)) == ("shop", "postgres")
    assert mine == its


# -- deadlines and errors ---------------------------------------------------------------------


class Listener:
    """Accepts TCP connections, sends each a fixed answer, and otherwise says nothing."""

    def __init__(self, answer: bytes = b"", *, hang_up: bool = False) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._answer, self._hang_up = answer, hang_up
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            peer.recv(4096)
            peer.sendall(self._answer)
            if self._hang_up:
                peer.close()
            else:
                self._accepted.append(peer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for peer in self._accepted:
            peer.close()


@pytest.fixture
def listen() -> Iterator[type[Listener]]:
    opened: list[Listener] = []

    class Tracked(Listener):
        def __init__(self, answer: bytes = b"", *, hang_up: bool = False) -> None:
            super().__init__(answer, hang_up=hang_up)
            opened.append(self)

    yield Tracked
    for listener in opened:
        listener.close()


def error_answer(message: str, code: str = "28P01") -> bytes:
    """An ErrorResponse of the wire protocol."""
    fields = f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode()
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields


# What a server says up to being ready: logged in, version, ready for a query.
def ready_answer(version: str) -> bytes:
    parameters = {
        "server_version": version,
        "client_encoding": "UTF8",
        "DateStyle": "ISO, MDY",
        "integer_datetimes": "on",
        "standard_conforming_strings": "on",
    }
    body = b"R\0\0\0\x08\0\0\0\0"
    for name, value in parameters.items():
        pair = f"{name}\0{value}\0".encode()
        body += b"S" + (len(pair) + 4).to_bytes(4, "big") + pair
    return body + b"Z\0\0\0\x05I"


def test_a_silent_server_cannot_hang_us(listen: type[Listener]) -> None:
    silent = listen()
    with pytest.raises(ServerConnectionError, match=r"no answer within 0\.2 s"):
        connector(silent.port, connect_timeout_s=0.2).fetch("SELECT 1")


def test_a_server_that_falls_silent_after_the_login_cannot_hang_us(
    listen: type[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.db_connector._GRACE_S", 0.1)
    silent = listen(ready_answer("17.1"))
    ours = connector(silent.port, statement_timeout_ms=100)
    assert ours.server_version == 170001
    with pytest.raises(ServerConnectionError, match=r"no answer within 0\.2 s"):
        ours.fetch("SELECT 1", reconnect=False)
    assert not ours.is_connected


def test_a_server_that_vanishes_without_a_word_is_a_lost_connection(
    listen: type[Listener],
) -> None:
    gone = listen(ready_answer("17.1"), hang_up=True)
    ours = connector(gone.port)
    assert ours.server_version == 170001
    with pytest.raises(ServerConnectionError, match="lost the connection"):
        ours.fetch("SELECT 1", reconnect=False)
    assert not ours.is_connected


def test_an_interrupted_wait_leaves_no_half_read_answer(listen: type[Listener]) -> None:
    class Alarm(BaseException):
        pass

    def ring(signum: int, frame: object) -> None:
        raise Alarm

    silent = listen(ready_answer("17.1"))
    ours = connector(silent.port)
    assert ours.backend_pid == 0
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.5)  # by then even a loaded machine waits for the answer
    try:
        with pytest.raises(Alarm):
            ours.fetch("SELECT 1")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not ours.is_connected


def test_a_connection_that_does_not_please_who_looks_at_it_is_closed_again(
    listen: type[Listener],
) -> None:
    ours = connector(listen(ready_answer("17.1")).port)
    looked: list[bool] = []

    def look(there: DatabaseConnector) -> None:
        looked.append(there.is_connected)
        if len(looked) == 1:
            raise OtherServerError("another server")

    ours.on_connect = look
    with pytest.raises(OtherServerError):
        ours.fetch("SELECT 1")
    assert not ours.is_connected
    assert ours.server_version == 170001
    assert ours.is_connected
    assert looked == [True, True]


def test_an_old_server_is_refused(listen: type[Listener]) -> None:
    old = listen(ready_answer("13.9"))
    with pytest.raises(UnsupportedServerError, match=r"PostgreSQL 13 .* 14 to 18"):
        connector(old.port).fetch("SELECT 1")


def test_an_old_server_that_refuses_our_settings_is_told_as_old(listen: type[Listener]) -> None:
    message = 'unrecognized configuration parameter "idle_session_timeout"'
    old = listen(error_answer(message, "42704"), hang_up=True)
    with pytest.raises(UnsupportedServerError, match="before 14"):
        connector(old.port).fetch("SELECT 1")


def test_no_password_in_errors_and_representations(listen: type[Listener]) -> None:
    # A server that repeats what it was sent is the worst case.
    echo = listen(error_answer(f"password {PASSWORD} is wrong"), hang_up=True)
    ours = connector(echo.port)
    with pytest.raises(ServerConnectionError) as caught:
        ours.fetch("SELECT 1")
    error: BaseException | None = caught.value
    assert "is wrong" in str(error)
    assert caught.value.__suppress_context__
    for text in (str(error), repr(error), repr(ours), ours.address):
        assert PASSWORD not in text


def test_what_a_server_says_is_no_command_to_a_terminal(listen: type[Listener]) -> None:
    words = "\x1b]0;owned\x07 no\x9b31m\u202e entry"
    fields = f"SFATAL\0C28000\0M{words}\0\0".encode()
    hostile = listen(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields, hang_up=True)
    with pytest.raises(ServerConnectionError) as caught:
        connector(hostile.port).fetch("SELECT 1")
    assert "owned" in caught.value.message
    assert caught.value.message.isprintable()


def test_nobody_listening_is_told_with_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ServerConnectionError, match=f"cannot connect to 127.0.0.1:{port}/shop"):
        connector(port).fetch("SELECT 1")


def test_the_environment_leads_to_no_other_server_than_the_named_one(
    listen: type[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = listen(ready_answer("17.1"))
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.77")  # nobody listens there
    assert connector(named.port).server_version == 170001


def test_close_is_idempotent() -> None:
    ours = connector()
    ours.close()
    ours.close()
    assert not ours.is_connected
