"""The hint-set catalogue: shape, versions, bounds of the machine."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.catalog.hint_sets import (
    HINT_SETS_FILE,
    load_hint_sets,
    parse_hint_sets,
    read_hint_sets,
)
from backend.domain.plans import DEFAULT_HINT_SET, HintSet
from backend.domain.server import HostFacts
from backend.errors import CatalogError, KnobBoundsError, UnknownKnobError
from backend.steering.client.planner_settings import SETTINGS

HOST = HostFacts(memory_bytes=16 << 30, cpu_count=4.0)
VERSIONS = (14, 15, 16, 17, 18)
JOINS = ("enable_nestloop", "enable_hashjoin", "enable_mergejoin")
SCANS = ("enable_seqscan", "enable_indexscan", "enable_indexonlyscan")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_arms_are_distinct_and_the_default_plan_is_the_first(version: int) -> None:
    catalog = load_hint_sets(version, HOST)
    assert catalog.hint_sets[0] == DEFAULT_HINT_SET
    assert len({hint_set.name for hint_set in catalog}) == len(catalog)
    assert len({tuple(h.settings.items()) for h in catalog}) == len(catalog)


def test_the_49_arms_of_the_recordings_are_among_them() -> None:
    switches = {
        frozenset(h.settings)
        for h in load_hint_sets(14, HOST)
        if set(h.settings) <= {*JOINS, *SCANS} and set(h.settings.values()) <= {"off"}
    }
    grid = {off for off in switches if not off >= set(JOINS) and not off >= set(SCANS)}
    assert grid == switches
    assert len(grid) == 49


def test_a_version_has_what_it_knows() -> None:
    def settings_of(version: int) -> set[str]:
        return {name for h in load_hint_sets(version, HOST) for name in h.settings}

    assert settings_of(16) - settings_of(14) == {"enable_presorted_aggregate"}
    assert settings_of(17) - settings_of(16) == {"enable_group_by_reordering"}
    assert "enable_memoize" in settings_of(14)
    assert settings_of(14) <= settings_of(17) == settings_of(18)


def test_every_toggle_and_group_is_used_and_explained() -> None:
    groups, toggles, combinations = read_hint_sets(HINT_SETS_FILE)
    assert {name for names in combinations for name in names} == set(toggles)
    assert {toggle.group for toggle in toggles.values()} == set(groups)
    for toggle in toggles.values():
        assert toggle.description.endswith(".")
        assert len(toggle.description) < 120


def test_the_page_lists_every_toggle_with_its_settings() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "steering.md").read_text("utf-8")
    for toggle in read_hint_sets(HINT_SETS_FILE)[1].values():
        settings = ", ".join(f"`{name} = {value}`" for name, value in toggle.settings.items())
        assert f"| `{toggle.name}` | {toggle.group} | {settings} |" in page
    oldest, newest = (len(load_hint_sets(v, HostFacts(8 << 30, 4.0))) for v in (14, 17))
    assert f"there are {oldest} hint sets for PostgreSQL 14 and {newest} for 17" in page


def test_a_small_machine_has_no_hint_set_with_much_memory() -> None:
    small = load_hint_sets(17, HostFacts(memory_bytes=2 << 30, cpu_count=1.0))
    assert "work_mem_64mb" in small.toggles
    assert "work_mem_256mb" not in small.toggles
    assert not [h for h in small if h.settings.get("work_mem") == "256MB"]
    assert [h for h in load_hint_sets(17, HOST) if h.settings.get("work_mem") == "256MB"]


def test_nobody_searches_all_orders_of_any_number_of_tables() -> None:
    for hint_set in load_hint_sets(17, HOST):
        assert hint_set.settings.get("geqo") != "off"
        assert int(hint_set.settings.get("geqo_threshold", "12")) <= 13


def test_the_plug_in_sends_every_one_of_them() -> None:
    for hint_set in load_hint_sets(18, HOST):
        for setting, value in hint_set.settings.items():
            assert SETTINGS[setting].may_be_set(value), (setting, value)


def test_toggles_combine_in_the_order_given() -> None:
    catalog = load_hint_sets(17, HOST)
    both = catalog.combine(["no_sort", "no_jit"])
    assert both == HintSet("no_sort+no_jit", {"enable_sort": "off", "jit": "off"})
    assert catalog.combine([]) == DEFAULT_HINT_SET
    with pytest.raises(CatalogError, match="no_such"):
        catalog.combine(["no_such"])
    with pytest.raises(CatalogError, match="work_mem cannot be both"):
        catalog.combine(["work_mem_64mb", "work_mem_256mb"])


def test_hint_sets_from_elsewhere_are_checked() -> None:
    catalog = load_hint_sets(17, HOST)
    for hint_set in catalog:
        assert catalog.check(hint_set) is hint_set
    with pytest.raises(UnknownKnobError, match="search_path"):
        catalog.check(HintSet("x", {"search_path": "public"}))
    with pytest.raises(UnknownKnobError, match="max_parallel_workers"):
        catalog.check(HintSet("x", {"max_parallel_workers": "8"}))
    with pytest.raises(KnobBoundsError, match="work_mem"):
        catalog.check(HintSet("x", {"work_mem": "500GB"}))
    with pytest.raises(UnknownKnobError, match="enable_presorted_aggregate"):
        load_hint_sets(15, HOST).check(HintSet("x", {"enable_presorted_aggregate": "off"}))


def test_versions_before_the_oldest_are_refused() -> None:
    with pytest.raises(CatalogError, match="13"):
        load_hint_sets(130005, HOST)


@pytest.fixture
def raw() -> Any:
    return copy.deepcopy(yaml.safe_load(HINT_SETS_FILE.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"enable_nestlop": False}, "enable_nestlop"),
        ({"statement_timeout": 0}, "statement_timeout"),
        ({"shared_buffers": "1GB"}, "no planner setting"),
        ({"commit_delay": 5}, "no planner setting"),
        ({"random_page_cost": -1}, "random_page_cost"),
        ({"work_mem": "64 potatoes"}, "work_mem"),
        ({}, "an entry or more"),
        (["work_mem"], "an entry or more"),
    ],
)
def test_a_malformed_toggle_is_refused(raw: Any, settings: Any, complaint: str) -> None:
    raw["toggles"][0]["settings"] = settings
    with pytest.raises(CatalogError, match=complaint):
        parse_hint_sets(raw)


@pytest.mark.parametrize(
    "combine",
    [
        "no_sort",
        [],
        ["no_sort"],
        [[]],
        [["no_such"]],
        [["no_sort"], ["no_sort"]],
        [["work_mem_64mb"], ["work_mem_256mb"]],
    ],
)
def test_a_malformed_family_is_refused(raw: Any, combine: Any) -> None:
    raw["families"][0]["combine"] = combine
    with pytest.raises(CatalogError):
        parse_hint_sets(raw)


def test_a_file_of_another_shape_is_refused(raw: Any) -> None:
    with pytest.raises(CatalogError, match="groups, toggles and families"):
        parse_hint_sets([raw])
    for section in ("groups", "toggles", "families"):
        with pytest.raises(CatalogError):
            parse_hint_sets({**raw, section: None})
    with pytest.raises(CatalogError, match="no_nestloop"):
        parse_hint_sets({**raw, "toggles": [raw["toggles"][0], raw["toggles"][0]]})
    with pytest.raises(CatalogError, match="spurious"):
        parse_hint_sets({**raw, "toggles": [{**raw["toggles"][0], "spurious": 1}]})
