"""Query steering in the product as a user starts it: explored, proven, served, switched, killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone

import pytest

from backend.db_connector import DatabaseConnector
from backend.domain.steering import SteeredClassRecord, SteeringState
from backend.steering.client import SteeringTable, parse_table
from backend.steering.places import SteeringPlaces
from tests.running_product import REPOSITORY, RunningProduct, open_folder
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FOUND_S = 240.0
"""Until a better plan is proven; generous, as the machine may be busy with other tests."""
SERVED_S = 30.0


@pytest.fixture(scope="module")
def product() -> Iterator[RunningProduct]:
    with open_folder() as folder:
        running = RunningProduct(
            folder,
            # No trials of knobs: the explorer need not wait for them.
            level1={"enabled": False, "window_s": 2, "settle_s": 0.5, "baseline_s": 10},
            workload={"data_scale_factor": 0.05, "name": "mixed"},
            steering={"share": 1.0, "cpu_limit_percent": 100, "default_share": 0.2},
        )
        try:
            yield running.start("--fast-mode")
        finally:
            running.end()


def table(product: RunningProduct) -> SteeringTable:
    return parse_table(SteeringPlaces(product.data_dir / "steering").table.read_bytes())


def verified(product: RunningProduct) -> SteeredClassRecord | None:
    found = (r for r in product.store.steered_classes() if r.state is SteeringState.VERIFIED)
    return next(found, None)


@pytest.fixture(scope="module")
def proven(product: RunningProduct) -> SteeredClassRecord:
    """A class for which a better plan was proven."""
    product.wait_for_child("tuner")
    return eventually(lambda: verified(product), "a hint set that was proven faster", FOUND_S, 1.0)


def is_in_table(product: RunningProduct, record: SteeredClassRecord) -> bool:
    entries = table(product).by_fingerprint.get(record.key.fingerprint, ())
    return any(entry.mode != "off" for entry in entries)


def test_what_is_proven_reaches_the_clients(
    product: RunningProduct, proven: SteeredClassRecord
) -> None:
    assert proven.evidence is not None
    assert proven.evidence.ci_high < 0
    assert proven.evidence.pairs >= 5
    eventually(lambda: is_in_table(product, proven), "the class in the steering table", SERVED_S)
    eventually(
        lambda: any(
            timing.arm == "steered" and timing.key == proven.key and timing.executions
            for timing in product.store.service_timings()
        ),
        "executions under the hint set",
        120,
        1.0,
    )
    with closing(DatabaseConnector(product.server.dsn("postgres"))) as admin:
        (row,) = admin.fetch(
            "SELECT count(*) AS n FROM pg_roles WHERE rolname = 'autopilot_explorer' "
            "AND NOT rolsuper AND NOT rolcreaterole AND NOT rolcreatedb"
        )
    assert row["n"] == 1


def test_literals_stay_in_the_private_file(
    product: RunningProduct, proven: SteeredClassRecord
) -> None:
    places = SteeringPlaces(product.data_dir / "steering")
    assert places.kept_samples.stat().st_mode & 0o077 == 0
    for record in product.store.steered_classes():
        assert "'" not in record.text.replace("'***'", "")


def test_a_killed_tuner_s_successor_goes_on_serving(
    product: RunningProduct, proven: SteeredClassRecord
) -> None:
    tuner = product.wait_for_child("tuner")
    tuner.kill()
    product.wait_for_child("tuner", other_than=tuner.pid)
    before_s = datetime.now(timezone.utc).timestamp()
    eventually(
        lambda: (table(product).expires_at_s or 0) > before_s + 60 and is_in_table(product, proven),
        "a table that the new tuner has written",
        90,
    )


def test_off_is_off_within_seconds(product: RunningProduct, proven: SteeredClassRecord) -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "run.py"), "steering", "set"),
            *(proven.key.fingerprint, "off", "--data-dir", str(product.data_dir)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: not is_in_table(product, proven), "the class out of the table", 10)
