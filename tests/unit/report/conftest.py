"""A store, a run in it, and its final report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backend.domain.records import TrialRecord
from backend.report import FinalReport, build_report
from backend.telemetry import SqlStore, open_store
from tests.reported_run import write_run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(open_store(f"sqlite:///{tmp_path}/telemetry.db")) as opened:
        yield opened


@pytest.fixture
def final(store: SqlStore) -> TrialRecord:
    return write_run(store)


@pytest.fixture
def report(store: SqlStore, final: TrialRecord) -> FinalReport:
    return build_report(store, workload={"name": "mixed", "scale": 0.05})
