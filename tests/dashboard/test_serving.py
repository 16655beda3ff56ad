"""Behind a reverse proxy: whose word on the client and on TLS is taken."""

from __future__ import annotations

import http.client
import re
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from backend.settings.dashboard import Role, UserSettings
from tests.dashboard.fake_store import FakeStore

pytestmark = pytest.mark.usefixtures("cheap_hashes")

PASSWORD = "operator's password"
USERS = {"alice": UserSettings(role=Role.OPERATOR, password=PASSWORD)}
FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


def log_in(base: str, password: str, scheme: str) -> Any:
    """What a browser does behind a proxy that tells who it is and that it came by TLS."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=30)
    connection.request("GET", "/login", headers=FORWARDED)
    page = connection.getresponse()
    cookie = page.getheader("Set-Cookie").partition(";")[0]
    token = re.search(r'name="token" value="([^"]+)"', page.read().decode())[1]
    connection.request(
        "POST",
        "/login",
        urlencode({"name": "alice", "password": password, "token": token}),
        {
            **FORWARDED,
            "Origin": f"{scheme}://{urlsplit(base).netloc}",
            "Cookie": cookie,
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("proxy", "address", "secure"),
    [
        ("127.0.0.1", "203.0.113.9", True),
        (None, "127.0.0.1", False),
        ("10.9.9.9", "127.0.0.1", False),
    ],
)
def test_only_the_trusted_proxy_is_believed(
    served: Any, store: FakeStore, proxy: str | None, address: str, secure: bool
) -> None:
    base = served(store, users=USERS, trusted_proxy=proxy)
    scheme = "https" if secure else "http"
    assert log_in(base, "a wrong password", scheme).status == 401
    assert store._events[-1].detail == {"address": address}
    answer = log_in(base, PASSWORD, scheme)
    assert answer.status == 303
    session = next(c for c in answer.headers.get_all("Set-Cookie") if "session" in c)
    assert ("Secure" in session) is secure
