"""What a bench does with statements that fail, hang or crash the server, on a session of lies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from psycopg2 import errors as pgerrors
from sqlalchemy.engine import make_url

from backend.domain.modes import Arm
from backend.domain.steering import ClassKey
from backend.errors import ServerConnectionError
from backend.sandbox import bench as module
from backend.sandbox.bench import Deadline, StatementBench
from backend.sandbox.comparison import CandidateFailedError, InterruptedCheckError
from backend.sandbox.statement_set import ChosenClass

URL = make_url("postgresql://u@h/d")
CANDIDATE = (("work_mem", "64"),)
A, B, C, D = (
    ChosenClass(ClassKey(name, '"$user", public'), 0.25, (f"SELECT {name}",)) for name in "abcd"
)


class FakeSession:
    """Runs nothing; ``behaves`` may raise for a statement under the settings in force."""

    behaves: Callable[[str, Sequence[tuple[str, str]]], None] = staticmethod(lambda *_: None)
    ran: ClassVar[list[tuple[str, bool]]] = []
    is_up = True

    def __init__(self, url: Any, *, search_path: str) -> None:
        self._settings: Sequence[tuple[str, str]] = ()

    def close(self) -> None:
        pass

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        yield

    @contextmanager
    def arm(self, settings: Sequence[tuple[str, str]]) -> Iterator[None]:
        self._settings = settings
        yield

    def copy_out(self, query: str, sink: Any, *, timeout_s: float) -> None:
        is_candidate = CANDIDATE[0] in self._settings
        FakeSession.ran.append((query, is_candidate))
        FakeSession.behaves(query, self._settings)
        sink.write(b"1\n")

    def execute(self, statement: str) -> None:
        if not FakeSession.is_up:
            raise ServerConnectionError("gone")


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TrialSession", FakeSession)
    monkeypatch.setattr(module, "_POLL_S", 0.001)
    monkeypatch.setattr(FakeSession, "behaves", staticmethod(lambda *_: None))
    monkeypatch.setattr(FakeSession, "ran", [])
    monkeypatch.setattr(FakeSession, "is_up", True)


def behaving(
    monkeypatch: pytest.MonkeyPatch, error: Exception, *texts: str, candidate_only: bool = True
) -> None:
    def behave(query: str, settings: Sequence[tuple[str, str]]) -> None:
        if query in texts and (CANDIDATE[0] in settings or not candidate_only):
            raise error

    monkeypatch.setattr(FakeSession, "behaves", staticmethod(behave))


def bench_of(
    *classes: ChosenClass,
    may_crash: bool = True,
    restarts: bool = False,
    stop: threading.Event | None = None,
    deadline_s: float = 60.0,
) -> StatementBench:
    made = StatementBench(
        URL,
        classes,
        CANDIDATE,
        lambda arm: restarts,
        Deadline(deadline_s, stop or threading.Event()),
        may_crash=may_crash,
    )
    made.prepare(10.0)
    FakeSession.ran.clear()
    return made


def test_only_the_candidates_statements_have_its_settings() -> None:
    made = bench_of(A, B)

    assert set(made.run_pass(Arm.INCUMBENT).times_s) == {"a", "b"}
    assert not any(is_candidate for _, is_candidate in FakeSession.ran)
    FakeSession.ran.clear()
    made.run_pass(Arm.CANDIDATE)
    assert all(is_candidate for _, is_candidate in FakeSession.ran)


def test_a_pass_after_a_restart_is_run_twice_and_counted_once() -> None:
    made = bench_of(A)
    made.run_pass(Arm.CANDIDATE)
    without = len(FakeSession.ran)
    FakeSession.ran.clear()

    restarted = bench_of(A, restarts=True)
    restarted.run_pass(Arm.CANDIDATE)

    assert len(FakeSession.ran) == 2 * without


def test_what_fails_before_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    behaving(monkeypatch, pgerrors.UndefinedTable(), "SELECT b", candidate_only=False)

    made = bench_of(A, B)

    assert made.statements == (A,)
    assert set(made.reference_s) == {"a"}


def test_what_fails_under_the_candidate_breaks_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench_of(A, B)
    behaving(monkeypatch, pgerrors.OutOfMemory(), "SELECT a")

    found = made.run_pass(Arm.CANDIDATE)

    assert set(found.broken) == {"a"}
    assert "fails with SQLSTATE" in found.broken["a"]
    assert set(found.times_s) == {"b"}
    assert made.run_pass(Arm.INCUMBENT).broken == {}


def test_what_takes_far_longer_breaks_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench_of(A)
    behaving(monkeypatch, pgerrors.QueryCanceled(), "SELECT a")

    assert made.run_pass(Arm.CANDIDATE).broken["a"].startswith("takes over 0.5 s, not")


def test_a_pass_ends_when_much_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench_of(A, B, C, D)
    behaving(monkeypatch, pgerrors.QueryCanceled(), "SELECT a", "SELECT b", "SELECT c")

    found = made.run_pass(Arm.CANDIDATE)

    assert set(found.broken) == {"a", "b", "c"}
    assert found.times_s == {}


def test_a_server_that_crashes_twice_fails_the_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench_of(A)
    behaving(monkeypatch, ServerConnectionError("lost"), "SELECT a")

    with pytest.raises(CandidateFailedError, match="crashed twice under class a"):
        made.run_pass(Arm.CANDIDATE)


def test_a_server_that_does_not_come_back_fails_the_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = bench_of(A)
    behaving(monkeypatch, ServerConnectionError("lost"), "SELECT a")
    monkeypatch.setattr(FakeSession, "is_up", False)
    monkeypatch.setattr(module, "_COMES_BACK_S", 0.02)

    with pytest.raises(CandidateFailedError, match="did not come back"):
        made.run_pass(Arm.CANDIDATE)


@pytest.mark.parametrize(("arm", "may_crash"), [(Arm.CANDIDATE, False), (Arm.INCUMBENT, True)])
def test_a_lost_connection_is_not_held_against_it_where_others_may_have_done_it(
    monkeypatch: pytest.MonkeyPatch, arm: Arm, may_crash: bool
) -> None:
    made = bench_of(A, may_crash=may_crash)
    behaving(monkeypatch, ServerConnectionError("lost"), "SELECT a", candidate_only=False)

    with pytest.raises(InterruptedCheckError, match="lost"):
        made.run_pass(arm)


def test_one_lost_connection_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench_of(A)
    errors = [ServerConnectionError("lost")]

    def behave(query: str, settings: Sequence[tuple[str, str]]) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(FakeSession, "behaves", staticmethod(behave))

    assert set(made.run_pass(Arm.CANDIDATE).times_s) == {"a"}


def test_it_stops_when_asked_to_and_when_time_is_over() -> None:
    stop = threading.Event()
    made = bench_of(A, stop=stop)
    stop.set()
    with pytest.raises(InterruptedCheckError, match="interrupted"):
        made.run_pass(Arm.INCUMBENT)

    with pytest.raises(InterruptedCheckError, match="out of time"):
        bench_of(A, deadline_s=0.0)
