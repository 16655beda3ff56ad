"""The tuner's jobs go on after a failure, which is told once and forgotten when it is over."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from backend.jobs import Jobs


class Patient:
    """A job that does what the test says, and counts its runs."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.runs = 0
        self.ran = threading.Condition()

    def work(self) -> None:
        with self.ran:
            self.runs += 1
            self.ran.notify_all()
        if self.error is not None:
            raise self.error

    def after(self, more: int) -> None:
        """Wait for so many more runs (and so for the end of all but the last)."""
        with self.ran:
            wanted = self.runs + more
            assert self.ran.wait_for(lambda: self.runs >= wanted, timeout=10)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def jobs(told: list[str]) -> Iterator[Jobs]:
    running = Jobs(told.append)
    yield running
    running.shut_down()


def test_a_fault_is_told_once_and_is_over_when_the_job_runs_well(
    jobs: Jobs, told: list[str]
) -> None:
    patient = Patient()
    patient.error = RuntimeError("the disk is full")
    jobs.repeat(patient.work, 0.01)
    jobs.start()
    patient.after(4)
    assert told == ["work: the disk is full"]
    assert jobs.fault == "work: the disk is full"
    patient.error = None
    patient.after(3)
    assert jobs.fault == ""
    patient.error = RuntimeError("the disk is full")
    patient.after(3)
    assert told == ["work: the disk is full"] * 2


def test_another_fault_of_the_same_job_is_told_too(jobs: Jobs, told: list[str]) -> None:
    patient = Patient()
    patient.error = RuntimeError("first")
    jobs.repeat(patient.work, 0.01)
    jobs.start()
    patient.after(3)
    patient.error = ValueError()
    patient.after(3)
    assert told == ["work: first", "work: ValueError()"]


def test_a_failing_job_does_not_stop_the_other_worker(jobs: Jobs) -> None:
    class Store(Patient):
        def prune(self) -> None:
            self.work()

    server, store = Patient(), Store()
    server.error = RuntimeError("gone")
    jobs.repeat(server.work, 0.01)
    jobs.repeat(store.prune, 0.01, worker="store")
    jobs.start()
    store.after(3)
    server.after(3)
    assert jobs.fault == "work: gone"
