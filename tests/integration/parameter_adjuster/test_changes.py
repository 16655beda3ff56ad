"""Knob changes on real servers: made, undone and kept, with and without a restart."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from backend.catalog.entries import same_value
from backend.db_connector import DatabaseConnector
from backend.domain.clock import SystemClock
from backend.domain.knobs import KnobValue
from backend.domain.modes import ChangeState
from backend.domain.server import HostFacts
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import AdjustmentError
from backend.parameter_adjuster import ParameterAdjuster
from backend.targets.postgresql import PostgresTarget
from backend.telemetry import SqlStore
from tests.foreign_server import AnyServer
from tests.integration.tuned_servers import Tuner, auto_conf

pytestmark = pytest.mark.integration


# -- applying and undoing ---------------------------------------------------------------------


@pytest.mark.usefixtures("any_knob")
def test_all_knobs_that_need_no_restart_at_once(tuner: Tuner, server: AnyServer) -> None:
    space = tuner.catalog.space(tunable_only=False)
    before = auto_conf(server)
    rng = random.Random(7)
    for _ in range(2):
        values = {
            knob.name: knob.decode(_vector(rng, knob.width))
            for knob in space
            if not knob.name.startswith("enable_")
        }
        batch = tuner.apply(**values)
        readings = tuner.target.read_knobs(list(values))
        for name, value in values.items():
            assert same_value(readings[name].value, value), name
        tuner.roll_back(batch)
        assert auto_conf(server) == before
    assert tuner.states() == {ChangeState.ROLLED_BACK}


def test_spelling_and_absence_are_restored(
    tuner: Tuner, server: AnyServer, human: Callable[..., Any]
) -> None:
    human("ALTER SYSTEM SET work_mem = '16MB'", "SELECT pg_reload_conf()")
    batch = tuner.apply(work_mem="64MB", random_page_cost=1.23456789, jit=False)
    assert human("SHOW work_mem") == [("64MB",)]
    assert auto_conf(server)["work_mem"] == "65536"
    tuner.roll_back(batch)
    assert {k: v for k, v in auto_conf(server).items() if k != "shared_buffers"} == {
        "work_mem": "16MB"
    }
    assert human("SHOW work_mem") == [("16MB",)]
    assert human("SHOW jit") == [("on",)]


def test_a_refused_value_undoes_the_whole_batch(
    tuner: Tuner, server: AnyServer, human: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses the second knob: the right to it goes away just then."""
    if int(human("SHOW server_version_num")[0][0]) < 150000:
        pytest.skip("privileges on single settings came with version 15")
    human(
        "DROP ROLE IF EXISTS half_a_tuner",
        "CREATE ROLE half_a_tuner LOGIN PASSWORD 'half' IN ROLE pg_read_all_settings",
        "GRANT ALTER SYSTEM ON PARAMETER work_mem, random_page_cost TO half_a_tuner",
        "GRANT EXECUTE ON FUNCTION pg_reload_conf() TO half_a_tuner",
        "GRANT SELECT ON pg_file_settings TO half_a_tuner",
        "GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO half_a_tuner",
    )
    url = server.dsn().set(username="half_a_tuner", password="half")
    target = PostgresTarget(DatabaseConnector(url))
    write = target.write_entries

    def revoked_meanwhile(entries: Mapping[str, KnobValue | None]) -> None:
        human("REVOKE ALTER SYSTEM ON PARAMETER random_page_cost FROM half_a_tuner")
        write(entries)

    monkeypatch.setattr(target, "write_entries", revoked_meanwhile)
    adjuster = ParameterAdjuster(target, tuner.store, tuner.catalog, SystemClock())
    before = auto_conf(server)
    try:
        with pytest.raises(AdjustmentError, match="stands again") as caught:
            adjuster.apply(
                {"work_mem": 65536, "random_page_cost": 1.1}, actor="test", epoch=tuner.epoch
            )
        assert "GRANT ALTER SYSTEM ON PARAMETER random_page_cost" in str(caught.value)
    finally:
        target.close()
        human("DROP OWNED BY half_a_tuner", "DROP ROLE half_a_tuner")
    assert auto_conf(server) == before
    assert tuner.states() == {ChangeState.FAILED}


def test_a_knob_that_our_role_may_not_set_is_refused_beforehand(
    tuner: Tuner, server: AnyServer, human: Callable[..., Any]
) -> None:
    human(
        "DROP ROLE IF EXISTS no_tuner",
        "CREATE ROLE no_tuner LOGIN PASSWORD 'none' IN ROLE pg_read_all_settings",
    )
    url = server.dsn().set(username="no_tuner", password="none")
    target = PostgresTarget(DatabaseConnector(url))
    adjuster = ParameterAdjuster(target, tuner.store, tuner.catalog, SystemClock())
    try:
        with pytest.raises(AdjustmentError, match="our role may not set work_mem"):
            adjuster.apply({"work_mem": 65536}, actor="test", epoch=tuner.epoch)
    finally:
        target.close()
        human("DROP ROLE no_tuner")
    assert tuner.states() == set(), "nothing was noted, since nothing was begun"


def test_role_settings_that_would_win_are_noticed(
    tuner: Tuner, human: Callable[..., Any], server: AnyServer
) -> None:
    human("ALTER ROLE CURRENT_USER SET work_mem = '5MB'")
    try:
        with pytest.raises(AdjustmentError, match="which wins over our entry"):
            tuner.apply(work_mem=65536)
    finally:
        human("ALTER ROLE CURRENT_USER RESET work_mem")
    assert "work_mem" not in auto_conf(server)
    assert tuner.states() == set()


def test_a_broken_configuration_file_is_no_success(
    tuner: Tuner, server: AnyServer, human: Callable[..., Any]
) -> None:
    """With an error in postgresql.conf a reload does nothing at all; we must notice."""
    path = server.cluster_dir / "postgresql.conf"
    original = path.read_text(encoding="utf-8")
    path.write_text(original + "\nthis is = not = a setting\n", encoding="utf-8")
    try:
        with pytest.raises(AdjustmentError, match="work_mem"):
            tuner.adjuster.apply(
                {"work_mem": 65536}, actor="test", epoch=tuner.epoch, verify_timeout_s=0.5
            )
    finally:
        path.write_text(original, encoding="utf-8")
    assert human("SHOW work_mem") == [("4MB",)]
    assert tuner.adjuster.reconcile(tuner.epoch).clean
    assert "work_mem" not in auto_conf(server)


def test_a_humans_value_stays(tuner: Tuner, server: AnyServer, human: Callable[..., Any]) -> None:
    batch = tuner.apply(work_mem=65536, jit=False)
    human("ALTER SYSTEM SET work_mem = '9MB'", "SELECT pg_reload_conf()")
    result = tuner.adjuster.roll_back(batch, epoch=tuner.epoch, reason="test")
    assert [row.knob for row in result.conflicts] == ["work_mem"]
    assert auto_conf(server)["work_mem"] == "9MB"
    assert "jit" not in auto_conf(server)
    assert tuner.states() == {ChangeState.CONFLICT, ChangeState.ROLLED_BACK}


@pytest.mark.usefixtures("any_knob")
def test_kept_changes_are_undone_on_request(
    tuner: Tuner, server: AnyServer, human: Callable[..., Any]
) -> None:
    compressed = "pglz" if server.version >= 150000 else True
    kept = tuner.adjuster.keep(tuner.apply(work_mem=65536, wal_compression=compressed))
    assert tuner.adjuster.reconcile(tuner.epoch).rolled_back == ()
    assert human("SHOW work_mem") == [("64MB",)]
    tuner.adjuster.roll_back(kept, epoch=tuner.epoch, reason="operator")
    assert "work_mem" not in auto_conf(server)
    assert human("SHOW wal_compression") == [("off",)]


def test_arms_change_places_many_times(tuner: Tuner, server: AnyServer) -> None:
    before = auto_conf(server)
    for _ in range(10):
        batch = tuner.adjuster.apply(
            {"work_mem": 65536, "random_page_cost": 1.1, "jit": False},
            actor="agent",
            epoch=tuner.epoch,
            trial_id=3,
        )
        tuner.roll_back(batch.batch_id)
    assert auto_conf(server) == before
    assert len(tuner.store.changes()) == 3


# -- restarts ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_knob")
def test_restart_knobs(tuner: Tuner, human: Callable[..., Any]) -> None:
    before = human("SHOW shared_buffers")
    batch = tuner.apply(shared_buffers="64MB", wal_buffers="8MB", work_mem=65536)
    assert human("SHOW shared_buffers") == [("64MB",)]
    assert human("SHOW wal_buffers") == [("8MB",)]
    tuner.roll_back(batch)
    assert human("SHOW shared_buffers") == before
    assert human("SHOW work_mem") == [("4MB",)]


@pytest.mark.usefixtures("any_knob")
def test_wal_buffers_may_choose_for_themselves(tuner: Tuner, human: Callable[..., Any]) -> None:
    batch = tuner.apply(wal_buffers=2048)
    second = tuner.apply(wal_buffers=-1)
    assert human("SHOW wal_buffers") == [("4MB",)]
    tuner.roll_back(second)
    assert human("SHOW wal_buffers") == [("16MB",)]
    tuner.roll_back(batch)
    assert human("SHOW wal_buffers") == [("4MB",)]


def test_a_server_that_does_not_start_comes_back_as_it_was(
    server: AnyServer, store: SqlStore, human: Callable[..., Any]
) -> None:
    if not isinstance(server, EmbeddedPostgres):
        pytest.skip("only servers of ours are started again with their last good settings")
    huge = HostFacts(memory_bytes=1 << 50, cpu_count=4.0)
    tuner = Tuner(server, store, huge)
    before = auto_conf(server)
    try:
        with pytest.raises(AdjustmentError, match=r"did not start(.|\n)*stands again"):
            # Any more is refused as a value, before anything is restarted.
            tuner.apply(shared_buffers="7TB", work_mem=65536)
        assert auto_conf(server) == before
        assert human("SHOW work_mem") == [("4MB",)]
        assert tuner.states() == {ChangeState.FAILED}
    finally:
        tuner.target.close()


def _vector(rng: random.Random, width: int) -> Any:
    values: Sequence[float] = [rng.uniform(-1, 1) for _ in range(width)]
    return np.array(values)
