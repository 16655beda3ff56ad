"""The container files: an ordinary user, loopback only, nothing copied that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from backend.config import load_settings
from dashboard.auth.accounts import Accounts
from dashboard.security import RequestGuard

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
IGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def copied() -> list[str]:
    """What the image takes from the folder."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in IGNORE if line.startswith("!")}
    assert IGNORE.count("*") == 1
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert source in kept


def test_nothing_private_is_let_in() -> None:
    kept = {line[1:] for line in IGNORE if line.startswith("!")}
    assert kept == set(copied())


def test_the_image_runs_as_an_ordinary_user() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.M)
    assert users == ["autopilot"]
    assert "useradd --uid 10001" in DOCKERFILE
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nENTRYPOINT ")


def test_the_pages_are_published_on_loopback_only() -> None:
    (service,) = COMPOSE["services"].values()
    assert service["ports"] == ["127.0.0.1:8050:8050"]
    assert "network_mode" not in service
    assert not service.get("privileged", False)


def test_a_browser_on_the_host_passes_the_guard() -> None:
    match = re.search(r"AUTOPILOT_DASHBOARD__HOST=(\S+)", DOCKERFILE)
    assert match
    guard = RequestGuard(match[1], (), 8050)
    assert guard.host_allowed("localhost:8050")
    assert guard.host_allowed("127.0.0.1:8050")
    assert not guard.host_allowed("evil.example")


def test_nobody_gets_in_without_a_password() -> None:
    (service,) = COMPOSE["services"].values()
    users = {k: v for k, v in service["environment"].items() if "__USERS__" in k}
    assert users["AUTOPILOT_DASHBOARD__USERS__OPERATOR__ROLE"] == "operator"
    password = users["AUTOPILOT_DASHBOARD__USERS__OPERATOR__PASSWORD"]
    assert password.startswith("${AUTOPILOT_PASSWORD:?")
    given = {k: "a dozen characters" if v == password else v for k, v in users.items()}
    found = load_settings(environ={**given, "AUTOPILOT_DASHBOARD__HOST": "0.0.0.0"})
    assert not Accounts(found.dashboard).open


def test_the_data_outlives_the_container() -> None:
    (service,) = COMPOSE["services"].values()
    assert service["volumes"] == ["data:/app/data"]
    assert "VOLUME /app/data" in DOCKERFILE
    assert "data" in COMPOSE["volumes"]
