"""Every claim of the final report follows from the raw rows of the store.

A whole demonstration on the simulated server is reported, and the report derived a second time
(``tests.rebuilt_report``). A falsified row must show.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from backend.demonstration import INJECTED
from backend.domain.records import ClientIntervalRecord
from backend.domain.steering import SteeringMode, SteeringState
from backend.report import build_report
from backend.targets.simulated import Noise
from backend.telemetry import SqlStore, open_store
from benchmarks.levels.demonstration import Demonstration
from tests.contracts import records as full
from tests.rebuilt_report.comparison import blocks_of_the_comparison, interval
from tests.rebuilt_report.raw_store import Row
from tests.rebuilt_report.report import differences, rebuilt

pytestmark = pytest.mark.slow

WORKLOAD = {"name": "mixed", "scale": 0.25}
CALM = {"swing": 0.0, "noise": Noise(sigma=0.03, shared_sigma=0.03, per_call=0.0)}
"""The same load at any moment: no window of the final comparison is void, so its blocks can be told
from the windows alone."""


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a demonstration of two days, with what a simulated server cannot give."""
    folder = tmp_path_factory.mktemp("demonstration")
    demonstration = Demonstration(folder, seed=2, days=2.0, **CALM)  # type: ignore[arg-type]
    try:
        demonstration.run()
    finally:
        demonstration.end()
    path = folder / "telemetry.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        _add_the_rest(store)
    return path


def _add_the_rest(store: SqlStore) -> None:
    """Clients' timings, Level 1's and Level 2's records, and a steered class."""
    status = store.status()
    assert status is not None
    assert status.started_at is not None
    began, rng = status.started_at, np.random.default_rng(0)

    def client(second: float) -> ClientIntervalRecord:
        p50_ms = float(rng.lognormal(1.0, 0.3))
        begins = began + timedelta(seconds=second)
        return ClientIntervalRecord(
            begins, begins + timedelta(seconds=20), "*", 1000, int(rng.integers(900, 1000)),
            int(rng.integers(3)), int(rng.integers(2)), mean_ms=1.5 * p50_ms, p50_ms=p50_ms,
            p95_ms=4 * p50_ms, p99_ms=8 * p50_ms,
        )  # fmt: skip

    store.add_client_intervals([client(second) for second in range(-60, 1900, 20)])
    for number, deployed in enumerate((True, False, False)):
        update = replace(full.POLICY_UPDATE, deployed=deployed, gain=0.1 * number)
        store.add_policy_update(replace(update, at=began + timedelta(seconds=900 + number)))
        store.add_genome(
            replace(full.GENOME, deployed=deployed, at=began + timedelta(seconds=number))
        )
    store.add_policy_update(replace(full.POLICY_UPDATE, at=began - timedelta(days=1)))
    steered = replace(full.STEERED_CLASS, state=SteeringState.VERIFIED, mode=SteeringMode.AUTO)
    other = replace(full.CLASS_KEY, search_path="public")
    store.save_steered_classes(
        [steered, replace(steered, key=other, state=SteeringState.EXPLORING, evidence=None)]
    )
    begins = began + timedelta(seconds=100)
    timing = replace(full.SERVICE_TIMING, started_at=begins, ended_at=begins + timedelta(seconds=9))
    store.add_service_timings([timing, replace(timing, arm="default")])


@pytest.fixture(scope="module")
def honest(lived: Path) -> Row:
    """What the report of that store has to say."""
    return rebuilt(lived)


def reported(path: Path) -> Row:
    """The report of a store, as its file holds it."""
    with closing(open_store(f"sqlite:///{path}")) as store:
        found: Row = json.loads(build_report(store, workload=WORKLOAD).as_json())
    return found


def test_the_run_had_all_that_a_report_tells_of(lived: Path) -> None:
    report = reported(lived)
    assert len(report["acts"]) == 5
    assert {t["proposer"] for t in report["trials"]["list"]} > {INJECTED}
    assert set(report["trials"]["by_kind"]) >= {"probe", "promotion", "probation", "final"}
    assert report["levels"]["level 1"]["undone"] >= 1
    assert report["phases"]["learning"]["client_p95_ms"] is not None
    assert {change["state"] for change in report["changes"]} >= {"kept", "rolled back"}


def test_every_number_follows_from_the_raw_rows(lived: Path, honest: Row) -> None:
    report = reported(lived)
    assert report.keys() - honest.keys() == {"generated_at", "workload"}
    assert differences(honest, report) == []


def test_the_run_itself_wrote_that_report(lived: Path, honest: Row) -> None:
    """But for what was added to the store afterwards, and for the event that tells of it."""
    written = json.loads((lived.parent / "final_report.json").read_text(encoding="utf-8"))
    for name in ("improvement", "ci_low", "ci_high", "configuration", "trials", "query_classes",
                 "changes", "index_trend"):  # fmt: skip
        assert differences(honest[name], written[name], name) == []


def test_the_improvement_follows_from_the_statements_of_its_windows(lived: Path) -> None:
    recorded, from_statements = blocks_of_the_comparison(lived)
    assert from_statements == pytest.approx(recorded, rel=1e-9)
    effect, low, high = interval(from_statements)
    report = reported(lived)
    assert report["improvement"] == pytest.approx(-effect, rel=1e-9)
    assert (report["ci_low"], report["ci_high"]) == pytest.approx((-high, -low), rel=1e-9)


FINAL = "(SELECT max(id) FROM trials WHERE kind = 'final')"
OUTSIDE = '(SELECT max(id) FROM windows WHERE arm IS NULL AND "index" IS NOT NULL)'
LEARNING = "(SELECT max(id) FROM windows WHERE arm IS NULL AND phase = 'learning')"
PROMOTED = "(SELECT min(id) FROM trials WHERE kind = 'promotion' AND verdict = 'accept')"


@pytest.mark.parametrize(
    ("falsified", "shows_in"),
    [
        (f'UPDATE windows SET "index" = 9 WHERE id = {OUTSIDE}', "/index_trend"),
        (f"UPDATE windows SET mean_ms = 900 WHERE id = {LEARNING}", "/phases/learning/mean_ms"),
        (f"UPDATE windows SET calls_per_s = 900 WHERE id = {LEARNING}", "/by_load/busier"),
        (f"UPDATE windows SET quality = 0 WHERE id = {LEARNING}", "/phases/learning/quality"),
        (f"UPDATE windows SET gauges = '{{}}' WHERE id = {LEARNING}", "/phases/learning/cpu"),
        (f"UPDATE windows SET arm = 'candidate' WHERE id = {LEARNING}", "/acts/"),
        (f"DELETE FROM windows WHERE trial_id = {FINAL} AND arm = 'incumbent'", "/compared"),
        (f"UPDATE trials SET effect = effect - 0.01 WHERE id = {FINAL}", "/improvement"),
        (f"UPDATE trials SET ci_high = 0.5 WHERE id = {FINAL}", "/ci_low"),
        (f"UPDATE trials SET verdict = 'aborted' WHERE id = {FINAL}", "/confidence"),
        (f"UPDATE trials SET effect = -0.5 WHERE id = {PROMOTED}", "/levels/level 0/effects"),
        (f"UPDATE trials SET proposer = 'policy (Level 1)' WHERE id = {PROMOTED}",
         "/levels/level 1/promoted"),
        ("UPDATE trials SET kind = 'recheck' WHERE kind = 'probation'", "/levels/level 1/rechecks"),
        ("UPDATE trials SET verdict = 'reject' WHERE kind = 'probe'", "/trials/by_verdict"),
        ("UPDATE client_intervals SET p95_ms = 3 * p95_ms", "/final/client_p95_ms"),
        ("UPDATE client_intervals SET completed = 1", "/baseline/throughput_per_s"),
        ("UPDATE client_intervals SET timeouts = 7", "/phases/learning/timeouts"),
        ("UPDATE policy_updates SET deployed = 1", "/levels/level 1/deployed"),
        ("UPDATE policy_updates SET gain = 0.9", "/levels/level 1/policy_updates/0/gain"),
        ("UPDATE genomes SET deployed = 1", "/levels/level 2/deployed"),
        ("DELETE FROM genomes", "/levels/level 2/measured"),
        ("UPDATE events SET message = 'nothing' WHERE kind = 'act'", "/acts/1/title"),
        ("DELETE FROM events WHERE kind = 'rollback'", "/levels/level 1/undone"),
        ("UPDATE events SET level = 'error' WHERE level = 'warning'", "/events/error/count"),
        ("UPDATE changes SET state = 'failed' WHERE state = 'kept'", "/changes/"),
        ('UPDATE policy_versions SET "index" = 0.1', "/policy_versions/0/index"),
        ("UPDATE query_classes SET text = 'SELECT 1'", "/query_classes/0/text"),
        ("UPDATE steered_classes SET explored_s = 1", "/steering/explored_s"),
        ("UPDATE service_timings SET executions = 99", "/steering/classes/0/service_executions"),
    ],
)  # fmt: skip
def test_a_falsified_row_shows(
    lived: Path, honest: Row, tmp_path: Path, falsified: str, shows_in: str
) -> None:
    path = tmp_path / "telemetry.db"
    shutil.copy(lived, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(falsified).rowcount >= 1
    found = differences(honest, reported(path))
    assert any(difference.startswith(shows_in) for difference in found), found


def test_a_falsified_statement_belies_the_comparison(lived: Path, tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    shutil.copy(lived, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE window_queries SET mean_ms = 2 * mean_ms WHERE window_id = "
            f"(SELECT max(id) FROM windows WHERE trial_id = {FINAL})"
        )
    recorded, from_statements = blocks_of_the_comparison(path)
    assert from_statements[-1] != pytest.approx(recorded[-1], rel=1e-3)
