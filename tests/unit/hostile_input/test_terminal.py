"""Commands print a store whose every text is an attack: none is a command to the terminal."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest
from rich.console import Console

from backend.commands import policy_actions, steering_actions
from backend.config import Settings
from backend.telemetry import SqlStore
from tests.dashboard.fake_store import FakeStore
from tests.dashboard.hostile_store import BELL, OVERRIDE, hostile_store


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    """A hostile store, which the commands find."""
    found: Any = hostile_store()
    found.close = lambda: None
    for commands in (policy_actions, steering_actions):
        monkeypatch.setattr(commands, "open_for_reading", lambda _settings: found)
    return cast(FakeStore, found)


def assert_harmless(printed: str) -> None:
    assert printed.strip()
    assert printed.replace("\n", "").isprintable()


def test_the_store_is_hostile_indeed(store: FakeStore) -> None:
    assert all(BELL in version.author for version in store.policy_versions())
    assert all(OVERRIDE in record.text for record in store.steered_classes())


def test_policy_versions(store: FakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    policy_actions.print_versions(Settings(), 10, as_json=False)
    assert_harmless(capsys.readouterr().out)


def test_what_is_different_in_a_version(
    store: FakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_, last = store.policy_versions()
    policy_actions.print_difference(Settings(), first.id, last.id, as_json=False)
    assert_harmless(capsys.readouterr().out)


def test_query_classes(store: FakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    steering_actions.print_classes(Settings(), [])
    assert_harmless(capsys.readouterr().out)


def test_the_summary(store: FakeStore) -> None:
    out = io.StringIO()
    SqlStore.print_summary(cast(SqlStore, store), Console(file=out))
    assert_harmless(out.getvalue())
