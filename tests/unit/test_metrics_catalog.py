"""The metrics catalogue: what ships is whole, documented and safe; what is malformed is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.catalog.document_metrics import render
from backend.catalog.metrics import (
    DerivedMetric,
    Metric,
    MetricsCatalogue,
    parse_metrics,
    postgresql_metrics,
)
from backend.errors import CatalogError

VERSIONS = (140000, 150000, 160000, 170000, 180000)
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"

SMALL = """
sources:
  one: {from: pg_one AS o, description: first}
  slow: {from: pg_slow AS s, every_s: 30, description: second}
metrics:
  a_total: {source: one, kind: counter, unit: calls, sql: o.a, description: a}
  b_level: {source: slow, kind: gauge, unit: calls, sql: s.b, description: b}
host:
  h_level: {kind: gauge, unit: cores, description: h}
derived:
  ratio: {unit: ratio, formula: a_total / (a_total + b_level), description: r}
"""


@pytest.fixture(scope="module")
def catalogue() -> MetricsCatalogue:
    return postgresql_metrics()


# -- what ships -------------------------------------------------------------------------------


def test_the_documentation_is_that_of_the_catalogue() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render(), (
        "run: python -m backend.catalog.document_metrics > docs/metrics.md"
    )


def test_every_metric_is_documented(catalogue: MetricsCatalogue) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in [*catalogue.metrics, *catalogue.derived, *catalogue.sources]:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize(
    ("unit", "ending"), [("ms", "_ms"), ("s", "_s"), ("bytes", "_bytes"), ("%", "_percent")]
)
def test_units_stand_in_the_names(catalogue: MetricsCatalogue, unit: str, ending: str) -> None:
    for metric in catalogue.metrics.values():
        # bytes of a thing may say it in front: wal_bytes_per_record
        assert (metric.unit == unit) == metric.name.endswith(ending), metric.name


def test_every_metric_says_what_it_is(catalogue: MetricsCatalogue) -> None:
    for metric in [*catalogue.metrics.values(), *catalogue.derived.values()]:
        assert metric.unit, metric.name
        assert len(metric.description) > 10, metric.name
        assert metric.description.endswith("."), metric.name


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_reads_each_source_once_and_each_metric_once(
    catalogue: MetricsCatalogue, version: int
) -> None:
    plans = catalogue.plan(version)
    sources = [plan.source.name for plan in plans]
    names = [name for plan in plans for name in plan.names]
    assert len(set(sources)) == len(sources)
    assert len(set(names)) == len(names)
    assert set(names) == {n for n, m in catalogue.metrics.items() if m.at(version) is not None}
    for plan in plans:
        assert plan.statement.startswith("SELECT (")
        assert plan.select_list.count("::float8 AS ") == len(plan.names)


@pytest.mark.parametrize("group", [
    {"xact_commit", "xact_rollback", "tps", "rollback_ratio"},
    {"connections_active", "connections_idle", "connections_idle_in_transaction"},
    {"waits_lock", "waits_io", "waits_lwlock", "locks_waiting"},
    {"blocks_hit", "blocks_read", "cache_hit_ratio", "read_time_ms", "write_time_ms"},
    {"wal_bytes", "wal_sync_time_ms", "wal_full_page_images"},
    {"checkpoints_timed", "checkpoints_requested", "checkpoint_write_time_ms"},
    {"temp_files", "temp_bytes", "dead_tuples", "database_size_bytes", "maintenance_running"},
    {"host_cpu_percent", "host_memory_percent", "host_read_bytes", "host_write_bytes"},
    {"longest_statement_s", "host_steal_percent", "queries_per_s", "query_mean_ms"},
])  # fmt: skip
def test_metrics_that_other_parts_rely_on(catalogue: MetricsCatalogue, group: set[str]) -> None:
    assert group <= {*catalogue.metrics, *catalogue.derived}


def test_a_metric_follows_the_server_to_another_source(catalogue: MetricsCatalogue) -> None:
    sync_time = catalogue.metrics["wal_sync_time_ms"]
    at_17, at_18 = sync_time.at(170010), sync_time.at(180001)
    assert at_17 == ("wal", "w.wal_sync_time")
    assert at_18 is not None
    assert at_18[0] == "io"
    assert catalogue.metrics["io_read_bytes"].at(150018) is None


def test_a_newer_server_is_read_like_the_newest_known(catalogue: MetricsCatalogue) -> None:
    assert [p.statement for p in catalogue.plan(190000)] == [
        p.statement for p in catalogue.plan(180000)
    ]


def test_some_metrics_only(catalogue: MetricsCatalogue) -> None:
    plans = catalogue.plan(170000, ["wal_bytes", "xact_commit", "wal_records", "host_load_1m"])
    assert {plan.source.name: plan.names for plan in plans} == {
        "wal": ("wal_bytes", "wal_records"),
        "database": ("xact_commit",),
    }
    with pytest.raises(CatalogError, match="no such metric: nosuch"):
        catalogue.plan(170000, ["wal_bytes", "nosuch"])


# -- what is malformed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sources:", "sources: [", "not YAML"),
        ("host:", "hosts:", "needs sources, metrics, host and derived"),
        ("kind: counter", "kind: count", "a_total: kind 'count' is none of counter, gauge"),
        ("source: one,", "source: two,", "a_total: no such source 'two'"),
        ("unit: calls, sql: o.a,", "sql: o.a,", "a_total: missing unit"),
        ("description: a}", "description: a, colour: red}", "unknown colour"),
        ("sql: o.a", "sql: {140000: 7}", "server_version_num to an expression"),
        ("sql: o.a", "sql: {new: o.a}", "server_version_num to an expression"),
        ("from: pg_one AS o", "from: {old: x}", "source one: map server_version_num"),
        ("source: slow, kind: gauge", "source: slow, kind: counter", "read every time"),
        ("a_total:", "aTotal:", "not snake_case"),
        ("h_level:", "a_total:", "stands in the catalogue twice"),
        ("b_level)", "c_level)", "unknown c_level"),
        ("a_total / (", "a_total ** (", r"only names, numbers and \+ - \* /"),
        ("a_total / (a_total + b_level)", "a_total /", "is no formula"),
        ("a_total / (a_total + b_level)", "a_total.real", "only names"),
        ("a_total / (a_total + b_level)", "__import__('os')", "only names"),
        ("a_total / (a_total + b_level)", "a_total if True else 1", "only names"),
    ],
)
def test_a_malformed_catalogue_is_refused(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(CatalogError, match=message):
        parse_metrics(SMALL.replace(old, new, 1))


def test_null_ends_a_metric() -> None:
    text = SMALL.replace("sql: o.a", "sql: {140000: o.a, 170000: null}")
    metric: Metric = parse_metrics(text).metrics["a_total"]
    assert metric.at(160009) == ("one", "o.a")
    assert metric.at(170000) is None


# -- formulas ---------------------------------------------------------------------------------


def formula(text: str) -> DerivedMetric:
    return DerivedMetric("x", "ratio", text, "")


@given(st.floats(0.1, 1e6), st.floats(0.1, 1e6), st.floats(0.1, 1e6))
def test_a_formula_is_arithmetic(a: float, b: float, c: float) -> None:
    values = {"a": a, "b": b, "c": c}
    assert formula("a - b / (c + 2) * 3").compute(values) == a - b / (c + 2) * 3


@pytest.mark.parametrize(
    "values", [{"a": 1.0}, {"a": 1.0, "b": 0.0}, {"a": 1e308, "b": 1e-308}, {}]
)
def test_a_formula_without_a_result_gives_none(values: dict[str, float]) -> None:
    assert formula("a / b").compute(values) is None
