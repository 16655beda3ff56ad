"""Wiring: what has stood on the server lies within its bounds, and everything is closed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from backend.components import Components, including, most_clients
from backend.config import Settings
from backend.errors import KnobBoundsError, NeverKnobError
from backend.expert_rules import expert_proposals
from tests.fake_server import CATALOG, HOST


def test_a_value_beyond_our_bounds_that_stands_can_be_read_and_set_again() -> None:
    high = CATALOG.knob("effective_cache_size").knob.bounds[1]
    stood = {"effective_cache_size": int(4 * high), "jit": False}
    with pytest.raises(KnobBoundsError):
        CATALOG.check("effective_cache_size", stood["effective_cache_size"])
    catalog = including(CATALOG, [stood])
    assert catalog.check("effective_cache_size", int(4 * high)) == int(4 * high)
    assert (
        catalog.knob("effective_cache_size").knob.bounds[0]
        == (CATALOG.knob("effective_cache_size").knob.bounds[0])
    )
    with pytest.raises(KnobBoundsError):
        catalog.check("effective_cache_size", int(5 * high))
    # The knob agent begins with what stands; it would end over a value outside its space.
    assert expert_proposals(catalog.space(), HOST, stood)


def test_earlier_versions_count_as_well_as_the_present() -> None:
    catalog = including(CATALOG, [{"work_mem": 4096}, {"work_mem": 16}, {"work_mem": 2**31 - 1}])
    assert catalog.knob("work_mem").knob.bounds == (16, 2**31 - 1)
    assert catalog.names == CATALOG.names


def test_unknown_words_and_negative_values_are_legal_where_they_stood() -> None:
    catalog = including(CATALOG, [{"wal_compression": "snappy", "work_mem": -5}])
    assert catalog.check("wal_compression", "snappy") == "snappy"
    assert catalog.check("work_mem", -5) == -5
    assert catalog.knob("work_mem").knob.bounds == CATALOG.knob("work_mem").knob.bounds


def test_what_lies_within_changes_nothing_and_the_never_list_stays() -> None:
    inside = {name: entry.default for name, entry in ((e.name, e.knob) for e in CATALOG)}
    catalog = including(CATALOG, [inside, {"fsync": False}])
    assert catalog == CATALOG
    with pytest.raises(NeverKnobError):
        catalog.check("fsync", False)


def test_everything_is_closed_whatever_fails() -> None:
    closed: list[str] = []

    def part(name: str, *, fails: bool = False) -> SimpleNamespace:
        def close() -> None:
            closed.append(name)
            if fails:
                raise RuntimeError(name)

        return SimpleNamespace(close=close, release=close)

    parts = SimpleNamespace(
        lease=part("lease", fails=True), target=part("target"), store=part("store")
    )
    with pytest.raises(RuntimeError, match="lease"):
        Components.close(parts)  # type: ignore[arg-type]
    assert closed == ["lease", "target", "store"]


@pytest.mark.parametrize(
    ("host", "answer", "clients"),
    [(None, 100, 8), ("db.example", 100, 100), ("db.example", None, 8)],
)
def test_on_a_foreign_server_every_client_that_it_lets_in_may_run_a_statement(
    host: str | None, answer: int | None, clients: int
) -> None:
    settings = Settings.model_validate({"database": {"host": host}})
    readings = {} if answer is None else {"max_connections": SimpleNamespace(value=answer)}
    target = SimpleNamespace(read_knobs=lambda names: readings)
    assert most_clients(settings, target) == clients  # type: ignore[arg-type]
