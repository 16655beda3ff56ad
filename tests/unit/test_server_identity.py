"""Which server answers: a stand-by that took over is told from the one that was restarted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backend.db_connector import DatabaseConnector
from backend.domain.server import ServerIdentity
from backend.errors import OtherServerError, PrivilegeError, ServerConnectionError, ServerError
from backend.targets.postgresql_identity import SameServer, identity_of
from backend.targets.postgresql_lock import TunerLock

ADDRESS = "db:5432/shop"


class Server:
    """Answers as one would; ``hidden`` and ``broken`` are what it does not tell."""

    address = ADDRESS
    is_connected = True
    on_connect: Callable[[DatabaseConnector], None] | None = None

    def __init__(self, timeline: int = 1, system: str = "7301", place: str | None = "10.0.0.1:5"):
        self.timeline, self.system, self.place = timeline, system, place
        self.standby = False
        self.hidden: ServerError | None = None
        self.broken: ServerError | None = None

    def fetch(self, statement: str, params: object = None, **_: bool) -> list[dict[str, Any]]:
        if "system_identifier" in statement:
            if self.hidden is not None:
                raise self.hidden
            return [{"id": self.system}]
        if self.broken is not None:
            raise self.broken
        timeline = None if self.standby else f"{self.timeline:08X}"
        return [
            {
                "standby": self.standby, "timeline": timeline, "place": self.place,
                "held": True, "pid": 7,
            }
        ]  # fmt: skip

    def close(self) -> None:
        """Nothing to close."""


def identity(server: Server) -> ServerIdentity:
    return identity_of(server)  # type: ignore[arg-type]


def test_a_server_is_its_cluster_and_timeline() -> None:
    assert identity(Server(timeline=26)) == ServerIdentity("7301/26", "10.0.0.1:5")
    assert identity(Server(place=None)).place == ADDRESS  # a Unix socket


def test_a_stand_by_has_no_timeline_of_its_own() -> None:
    server = Server()
    server.standby = True
    assert identity(server).timeline == "7301/standby"


def test_what_a_service_hides_is_unknown() -> None:
    server = Server()
    server.hidden = PrivilegeError("not for you")
    assert identity(server).timeline == "hidden/1"
    server.broken = ServerError("no such function")
    assert identity(server) == ServerIdentity("", ADDRESS)


@pytest.mark.parametrize("field", ["hidden", "broken"])
def test_a_lost_connection_is_no_identity(field: str) -> None:
    server = Server()
    setattr(server, field, ServerConnectionError("gone"))
    with pytest.raises(ServerConnectionError):
        identity(server)


@pytest.mark.parametrize(
    ("first", "second", "other"),
    [
        ("7301/1", "7301/1", False),
        ("7301/1", "7301/2", True),
        ("7301/1", "7301/standby", True),
        ("7301/1", "99/1", True),
        ("", "7301/1", False),
        ("7301/1", "", False),
    ],
)
def test_what_is_not_known_is_not_held_against_it(first: str, second: str, other: bool) -> None:
    assert ServerIdentity(first).is_not(second) is other


def test_all_connections_of_a_target_end_on_one_server() -> None:
    first, second, third = Server(), Server(place="10.0.0.9:5"), Server(timeline=2)
    same = SameServer(first, second, third)  # type: ignore[arg-type]
    for server in (first, second):
        assert server.on_connect == same.check
        server.on_connect(server)
    with pytest.raises(OtherServerError, match=r"another server now: .*7301/2.*before .*7301/1"):
        same.check(third)  # type: ignore[arg-type]
    third.standby = True
    with pytest.raises(OtherServerError, match="leads to a stand-by"):
        same.check(third)  # type: ignore[arg-type]


def test_a_stand_by_that_is_promoted_under_us_is_noticed() -> None:
    server = Server()
    server.standby = True
    lock = TunerLock(server)  # type: ignore[arg-type]
    assert lock.hold()
    assert lock.hold()
    server.standby = False
    with pytest.raises(OtherServerError, match="has become a primary"):
        lock.hold()
