"""The knob catalogue: shape, bounds, versions, the never-list and the documentation."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from backend.catalog import load_catalog, never_reason, refuse_if_never
from backend.catalog.entries import (
    entry_text,
    entry_value,
    same_entry,
    same_value,
    writable_entry,
)
from backend.catalog.knobs import KNOBS_FILE, parse_catalog
from backend.config import Level1Section
from backend.domain.knobs import KnobValue
from backend.domain.server import HostFacts
from backend.errors import (
    CatalogError,
    KnobBoundsError,
    NeverKnobError,
    UnknownKnobError,
)

HOST = HostFacts(memory_bytes=8 << 30, cpu_count=4.0, free_disk_bytes=100 << 30)
VERSIONS = (14, 15, 16, 17, 18)
NEVER_EXAMPLES = [
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "data_sync_retry",
    "zero_damaged_pages",
    "wal_level",
    "wal_sync_method",
    "archive_mode",
    "archive_command",
    "archive_library",
    "archive_timeout",
    "restore_command",
    "autovacuum",
    "autovacuum_freeze_max_age",
    "vacuum_freeze_min_age",
    "vacuum_multixact_freeze_table_age",
    "autovacuum_multixact_freeze_max_age",
    "vacuum_failsafe_age",
    "default_transaction_isolation",
    "transaction_isolation",
    "default_transaction_read_only",
    "statement_timeout",
    "lock_timeout",
    "idle_session_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "deadlock_timeout",
    "authentication_timeout",
    "max_connections",
    "max_worker_processes",
    "password_encryption",
    "ssl",
    "ssl_cert_file",
    "hba_file",
    "ident_file",
    "krb_server_keyfile",
    "log_destination",
    "log_directory",
    "log_statement",
    "logging_collector",
    "allow_alter_system",
    "shared_preload_libraries",
    "session_preload_libraries",
    "listen_addresses",
    "port",
    "data_directory",
    "unix_socket_directories",
    "search_path",
    "row_security",
    "track_io_timing",
    "compute_query_id",
    "pg_stat_statements.max",
    "primary_conninfo",
    "synchronous_standby_names",
    "dynamic_library_path",
]


def test_at_least_45_knobs_for_every_supported_version() -> None:
    for version in VERSIONS:
        catalog = load_catalog(version, HOST)
        assert len(catalog) >= 45
        assert len(catalog.space()) >= 20
        assert {entry.group for entry in catalog} == set(catalog.groups)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_entry_is_complete_and_its_default_is_legal(version: int) -> None:
    for entry in load_catalog(version, HOST):
        knob = entry.knob
        assert knob.default is not None
        assert knob.validate(knob.default) == knob.default
        assert knob.description.endswith(".")
        assert len(knob.description) < 160
        assert re.fullmatch(
            r"https://www\.postgresql\.org/docs/current/runtime-config-[a-z]+\.html"
            r"#GUC-[A-Z0-9-]+",
            knob.doc_url,
        )
        assert knob.settle_s >= 2


@pytest.mark.parametrize("memory_bytes", [256 << 20, 1 << 30, 24 << 30, 4 << 40])
@pytest.mark.parametrize("cpu_count", [0.5, 2.0, 192.0])
def test_bounds_hold_on_machines_of_any_size(memory_bytes: int, cpu_count: float) -> None:
    host = HostFacts(memory_bytes=memory_bytes, cpu_count=cpu_count)
    for version in VERSIONS:
        space = load_catalog(version, host).space(tunable_only=False, include_restart=True)
        defaults = space.default_config()
        assert space.validate(dict(defaults)) == defaults
        assert space.decode(space.encode(defaults)).keys() == defaults.keys()


def test_relative_bounds_follow_the_machine() -> None:
    small = load_catalog(17, HostFacts(4 << 30, 2.0)).knob("shared_buffers").knob
    large = load_catalog(17, HostFacts(64 << 30, 2.0)).knob("shared_buffers").knob
    assert small.high == int(0.4 * (4 << 30) / 8192)
    assert large.high == int(0.4 * (64 << 30) / 8192)
    wide = load_catalog(17, HostFacts(64 << 30, 32.0))
    assert wide.knob("max_parallel_workers_per_gather").knob.high == 32


def test_a_machine_of_unknown_size_counts_as_a_middling_one() -> None:
    unknown = load_catalog(17, HostFacts(0, 0, is_local=False))
    assert unknown.entries == load_catalog(17, HostFacts(8 << 30, 4.0)).entries


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("work_mem", "64MB", 65536),
        ("work_mem", "rubbish", "rubbish"),
        ("shared_buffers", "100kB", 12),
        ("jit", "tru", True),
        ("jit", "of", False),
        ("jit", "o", "o"),
        ("wal_compression", "LZ4", "lz4"),
        ("random_page_cost", "1.1", 1.1),
    ],
)
def test_entries_are_read_as_the_server_reads_them(name: str, text: str, value: KnobValue) -> None:
    knob = load_catalog(17, HOST).knob(name).knob
    assert entry_value(knob, text) == value
    assert same_entry(knob, text, text.upper() if name == "wal_compression" else text)


def test_entries_compare_by_meaning_and_are_written_as_they_were_spelt() -> None:
    knob = load_catalog(17, HOST).knob("work_mem").knob
    assert same_entry(knob, "64MB", "65536")
    assert not same_entry(knob, "64MB", "65537")
    assert not same_entry(knob, None, "4096")
    assert same_entry(None, None, None)
    assert writable_entry(knob, "64MB") == "64MB"
    assert writable_entry(knob, "65536") == 65536
    assert writable_entry(knob, None) is None
    assert writable_entry(None, "x") == "x"
    assert entry_text(True) == "on"
    assert entry_text(0.1) == "0.1"
    assert same_value(1.123456789, 1.12346)
    assert not same_value(1, True)


def test_the_space_of_a_version_does_not_depend_on_free_disk_space() -> None:
    full = load_catalog(17, HostFacts(8 << 30, 4.0, free_disk_bytes=1 << 20)).space()
    empty = load_catalog(17, HostFacts(8 << 30, 4.0, free_disk_bytes=1 << 42)).space()
    assert full.fingerprint == empty.fingerprint


def test_versions_differ_where_the_server_does() -> None:
    assert load_catalog(14, HOST).knob("wal_compression").knob.kind == "boolean"
    assert load_catalog(150018, HOST).knob("wal_compression").knob.kind == "categorical"
    assert load_catalog(14, HOST).knob("hash_mem_multiplier").knob.default == 1.0
    assert load_catalog(15, HOST).knob("hash_mem_multiplier").knob.default == 2.0
    assert "io_combine_limit" not in load_catalog(16, HOST)
    assert "io_combine_limit" in load_catalog(17, HOST)
    assert load_catalog(17, HOST).knob("autovacuum_max_workers").knob.context == "restart"
    assert load_catalog(18, HOST).knob("autovacuum_max_workers").knob.context == "reload"
    assert load_catalog(190000, HOST).names == load_catalog(18, HOST).names
    with pytest.raises(CatalogError, match="13 is older"):
        load_catalog(130012, HOST)


def test_space_selects_by_tunability_restart_and_family() -> None:
    catalog = load_catalog(17, HOST)
    default = catalog.space()
    assert "work_mem" in default
    assert "shared_buffers" not in default
    assert "enable_seqscan" not in default
    assert "shared_buffers" in catalog.space(include_restart=True)
    everything = catalog.space(tunable_only=False, include_restart=True)
    assert everything.names == catalog.names
    memory = catalog.space(families=["memory"])
    assert {catalog.knob(name).group for name in memory.names} == {"memory"}
    with pytest.raises(CatalogError, match="no knob family named nonsense"):
        catalog.space(families=["nonsense"])
    with pytest.raises(CatalogError, match="empty"):
        catalog.space(families=[])


def test_agents_never_turn_what_makes_plans_impossible_or_loses_cleaning() -> None:
    tunable = load_catalog(17, HOST).space(include_restart=True)
    for name in tunable.names:
        assert not name.startswith("enable_")
        assert name not in ("huge_pages", "geqo", "commit_delay", "autovacuum_max_workers")


# -- requests ---------------------------------------------------------------------------------


def test_check_takes_units_and_types() -> None:
    catalog = load_catalog(17, HOST)
    assert catalog.check("work_mem", "64MB") == 65536
    assert catalog.check("work_mem", " 256 mb ") == 262144
    assert catalog.check("shared_buffers", "128MB") == 16384
    assert catalog.check("shared_buffers", "100000 kB") == 12500
    assert catalog.check("checkpoint_timeout", "15min") == 900
    assert catalog.check("autovacuum_vacuum_cost_delay", "2000us") == 2.0
    assert catalog.check("jit", "off") is False
    assert catalog.check("wal_buffers", -1) == -1
    assert catalog.check("random_page_cost", "1.1") == 1.1
    assert catalog.check_all({"work_mem": 8192, "jit": True}) == {"work_mem": 8192, "jit": True}


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("work_mem", 1, "outside"),
        ("work_mem", "10 apples", "no such unit"),
        ("work_mem", "10 s", "in seconds"),
        ("work_mem", "64MB; DROP TABLE x", "not a number"),
        ("work_mem", "nan", "not a number"),
        ("work_mem", "1e999", "finite"),
        ("work_mem", True, "not a number"),
        ("work_mem", None, "not a number"),
        ("work_mem", [4096], "not a number"),
        ("random_page_cost", "1 MB", "unit where none belongs"),
        ("jit", "maybe", "neither on nor off"),
        ("wal_compression", "gzip", "none of"),
    ],
)
def test_check_refuses_bad_values(name: str, value: object, complaint: str) -> None:
    with pytest.raises(KnobBoundsError, match=complaint):
        load_catalog(17, HOST).check(name, value)


@pytest.mark.parametrize("name", ["no_such_knob", "", "work_mem; --", "WORK_MEM", " work_mem"])
def test_check_refuses_unknown_names(name: str) -> None:
    with pytest.raises(UnknownKnobError, match="writable knobs"):
        load_catalog(17, HOST).check(name, 4096)


@given(name=st.text(max_size=40), value=st.one_of(st.text(), st.floats(), st.integers()))
def test_check_survives_hostile_requests(name: str, value: object) -> None:
    assume(name not in load_catalog(17, HOST))  # texts may be words of our own source
    with pytest.raises((UnknownKnobError, NeverKnobError)):
        load_catalog(17, HOST).check(name, value)


@given(value=st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.binary()))
def test_whatever_check_lets_through_is_legal(value: object) -> None:
    catalog = load_catalog(17, HOST)
    for name in ("work_mem", "random_page_cost", "jit", "wal_compression", "wal_buffers"):
        knob = catalog.knob(name).knob
        try:
            checked = catalog.check(name, value)
        except KnobBoundsError:
            continue
        assert knob.validate(checked) == checked


# -- the never-list ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NEVER_EXAMPLES)
def test_never_knobs_are_refused_in_any_spelling(name: str) -> None:
    catalog = load_catalog(17, HOST)
    for spelling in (name, name.upper(), f" {name} "):
        with pytest.raises(NeverKnobError, match="never changed here: "):
            refuse_if_never(spelling)
        with pytest.raises(NeverKnobError):
            catalog.check(spelling, "on")


@pytest.mark.parametrize("version", VERSIONS)
def test_no_catalogued_knob_is_on_the_never_list(version: int) -> None:
    assert [n for n in load_catalog(version, HOST).names if never_reason(n)] == []


def test_checkpoint_timeout_is_no_time_out_in_that_sense() -> None:
    refuse_if_never("checkpoint_timeout")
    assert never_reason("archive_timeout")


# -- malformed files --------------------------------------------------------------------------


@pytest.fixture
def data() -> Any:
    return copy.deepcopy(yaml.safe_load(KNOBS_FILE.read_text(encoding="utf-8")))


def test_the_file_itself_is_well_formed(data: Any) -> None:
    groups, items = parse_catalog(data)
    assert set(groups) == {item["group"] for item in items}


def test_a_never_knob_in_the_file_fails_the_load(data: Any) -> None:
    data["knobs"][0]["name"] = "fsync"
    with pytest.raises(CatalogError, match="fsync is on the never-list"):
        parse_catalog(data)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("kind", "number", "kind = 'number'"),
        ("context", "boot", "context = 'boot'"),
        ("risk", "none", "risk = 'none'"),
        ("group", "misc", "no group named 'misc'"),
        ("colour", "red", "unknown .*colour"),
    ],
)
def test_a_bad_field_is_named(data: Any, field: str, value: str, complaint: str) -> None:
    data["knobs"][3][field] = value
    with pytest.raises(CatalogError, match=complaint):
        parse_catalog(data)


def test_a_missing_field_is_named(data: Any) -> None:
    del data["knobs"][3]["description"]
    with pytest.raises(CatalogError, match=r"missing .*description"):
        parse_catalog(data)


@pytest.mark.parametrize("broken", [None, [], {}, {"groups": [], "knobs": []}, {"knobs": {}}])
def test_other_shapes_are_refused(broken: object) -> None:
    with pytest.raises(CatalogError):
        parse_catalog(broken)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_least_settling_that_settings_allow_leaves_knobs_to_try(version: int) -> None:
    least = next(
        m.ge for m in Level1Section.model_fields["max_settle_s"].metadata if hasattr(m, "ge")
    )
    assert len(load_catalog(version, HOST).space(max_settle_s=least)) > 10


# -- documentation ----------------------------------------------------------------------------


def test_every_knob_is_documented_and_the_page_is_current() -> None:
    from backend.catalog.document import render

    page = Path(__file__).parents[2] / "docs" / "knobs.md"
    assert page.read_text(encoding="utf-8") == render(), (
        "docs/knobs.md is out of date: run python -m backend.catalog.document > docs/knobs.md"
    )
    text = page.read_text(encoding="utf-8")
    for version in VERSIONS:
        for name in load_catalog(version, HOST).names:
            assert f"`{name}`" in text
