"""How far the tuner may go on a server: by what it offers, and by which knobs our role may set."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from backend.components import _what_may_be_tried, as_built
from backend.config import Settings
from backend.domain.modes import Mode
from backend.domain.server import KnobReading, ServerInfo
from tests.fake_server import CATALOG, HOST

EVERYTHING = {
    "alter_system": True, "statement_statistics": True, "read_all_stats": True, "restart": False,
}  # fmt: skip
SERVER = ServerInfo(
    "id", "postgresql", 170001, "PostgreSQL 17.1", "h:5432/d",
    datetime(2026, 1, 1, tzinfo=timezone.utc), HOST, EVERYTHING,
)  # fmt: skip
SETTINGS = Settings()


def readings(*, may_alter: bool = True, **others: bool) -> dict[str, KnobReading]:
    """All catalogued knobs; those named may be set, or not."""
    return {
        entry.name: KnobReading(
            entry.name,
            entry.knob.default or 0,
            "default",
            may_alter=others.get(entry.name, may_alter),
        )
        for entry in CATALOG
    }


def test_with_everything_every_mode_is_possible() -> None:
    assert (SERVER.best_mode, SERVER.why_not_further) == (Mode.AUTO, "")
    assert [SERVER.mode_for(mode) for mode in Mode] == list(Mode)


@pytest.mark.parametrize(
    ("lacking", "best"),
    [
        ("alter_system", Mode.ADVISE),
        ("statement_statistics", Mode.OBSERVE),
        ("read_all_stats", Mode.OBSERVE),
    ],
)
def test_what_is_missing_leaves_the_next_best_mode(lacking: str, best: Mode) -> None:
    server = SERVER.without(lacking, "the reason; THE SQL;")
    assert server.best_mode is best
    assert server.mode_for(Mode.AUTO) is server.mode_for(Mode.APPROVE) is best
    assert server.mode_for(Mode.OBSERVE) is Mode.OBSERVE
    assert server.why_not_further.endswith(": the reason; THE SQL;")
    assert SERVER.can(lacking), "the other one is as it was"


def test_only_what_our_role_may_set_is_tried() -> None:
    info, space = _what_may_be_tried(CATALOG, SETTINGS, SERVER, readings(work_mem=False))
    assert info == SERVER
    assert "work_mem" not in space
    assert "random_page_cost" in space


def test_one_granted_knob_makes_no_other_one_writable() -> None:
    granted = readings(may_alter=False, jit=True)
    info, space = _what_may_be_tried(CATALOG, SETTINGS, SERVER, granted)
    assert space.names == ("jit",)
    assert info.best_mode is Mode.AUTO


def test_where_none_that_is_tried_may_be_set_there_is_only_advice() -> None:
    granted = readings(may_alter=False, autovacuum_naptime=True)
    info, space = _what_may_be_tried(CATALOG, SETTINGS, SERVER, granted)
    assert info.best_mode is Mode.ADVISE
    assert "run.py grants" in info.why_not_further
    assert {"work_mem", "jit"} <= set(space.names), "all of them can be advised"


def test_choices_that_the_build_leaves_out_are_no_choices() -> None:
    known = readings()
    known["wal_compression"] = replace(known["wal_compression"], choices=("on", "off", "pglz"))
    catalog = as_built(CATALOG, known)
    assert set(catalog.knob("wal_compression").knob.choices) == {"off", "pglz"}
    assert catalog.names == CATALOG.names
    known["wal_compression"] = replace(known["wal_compression"], choices=("off", "other"))
    assert "wal_compression" not in as_built(CATALOG, known)
