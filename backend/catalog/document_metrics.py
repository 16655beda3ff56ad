"""Write docs/metrics.md from the metrics catalogue.

``python -m backend.catalog.document_metrics > docs/metrics.md``
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator

from backend.catalog.metrics import DerivedMetric, Metric, MetricsCatalogue, postgresql_metrics

_HEAD = """# The metrics

What is read from a PostgreSQL server in every snapshot, and what a window makes of two snapshots.
This page is made from `backend/catalog/postgresql/metrics.yaml` by
`python -m backend.catalog.document_metrics`; a test fails when it is out of date. A new metric is
one entry in that file.

- A **counter** only grows. A window holds its growth per second, so `read_time_ms` becomes
  milliseconds a second.
- A **gauge** is a level. A window holds the mean of both ends.
- A **derived** metric is a formula over a window; it stands among the window's gauges.
- *Since* and *until* are PostgreSQL versions; nothing means 14 to 18.
- PostgreSQL's sessions publish their counters (not those of query classes) at most once a second,
  and ten seconds after they fell idle at the latest: windows of a few seconds blur.
- Our own sessions (the tuner's and the watchdog's) are not counted among the sessions. What cannot
  be told apart is: our statements add a few `xact_commit` and blocks a snapshot.

## Query classes

From `pg_stat_statements(false)`, the connected database only, top-level statements only (nested
ones would be counted twice): calls, execution time, rows, shared blocks found and read, temporary
blocks written, bytes of WAL, plans. A class is SELECT, INSERT, UPDATE, DELETE, MERGE, WITH, VALUES,
TABLE, FETCH, COPY, CALL, DO, EXECUTE or REFRESH; transaction control, SET, maintenance and DDL are
not. Statements that carry our tag `/* autopilot */` are left out. The tag stands behind the first
keyword, since PostgreSQL 18 drops comments before it. Texts are read once, when a class is first
seen.

## No window

Two snapshots form no window when between them

- the server was restarted, or its clock went back;
- the configuration was reloaded (by whomever);
- statistics were reset, those of one query class included, or a counter went back (of the
  machine: that counter alone has no value);
- pg_stat_statements evicted entries (it holds `pg_stat_statements.max`) so that classes with more
  than 20 % of the execution time cannot be compared. With fewer, they are left out. Without
  evictions, a class that is new counts from zero.
"""


def render() -> str:
    """Return the page as Markdown."""
    catalogue = postgresql_metrics()
    return _HEAD + "".join(_sections(catalogue))


def _sections(catalogue: MetricsCatalogue) -> Iterator[str]:
    yield "\n## Sources\n\n"
    yield "A source is one small statement. Between its readings a gauge keeps its value.\n\n"
    yield "| Source | Read | What |\n|---|---|---|\n"
    for source in catalogue.sources.values():
        interval = f"every {source.every_s:g} s" if source.every_s else "every snapshot"
        yield f"| `{source.name}` | {interval} | {_cell(source.description)} |\n"
    for name in catalogue.sources:
        group = [m for m in catalogue.metrics.values() if _home(m) == name]
        yield from _table(name.replace("_", " ").capitalize(), group)
    host = [m for m in catalogue.metrics.values() if not m.expressions]
    yield from _table("Host", host, "Where the server runs on this machine; limits from cgroups.")
    yield "\n## Derived\n\n"
    yield (
        "Counters stand for rates per second. `query_calls`, `query_exec_time_ms` and `query_rows` "
        "are totals over the window's query classes, `duration_s` is its length. A formula that "
        "would divide by zero gives no value.\n\n"
    )
    yield "| Metric | Unit | Formula | Meaning |\n|---|---|---|---|\n"
    yield from map(_derived_row, catalogue.derived.values())


def _table(title: str, metrics: Iterable[Metric], note: str = "") -> Iterator[str]:
    yield f"\n## {title}\n\n" + (f"{note}\n\n" if note else "")
    yield "| Metric | Kind | Unit | Since | Until | Meaning |\n|---|---|---|---|---|---|\n"
    for metric in metrics:
        since, until = _versions(metric)
        yield (
            f"| `{metric.name}` | {metric.kind} | {_cell(metric.unit)} | {since} | {until} "
            f"| {_cell(metric.description)} |\n"
        )


def _derived_row(metric: DerivedMetric) -> str:
    return (
        f"| `{metric.name}` | {_cell(metric.unit)} | `{metric.formula}` "
        f"| {_cell(metric.description)} |\n"
    )


def _home(metric: Metric) -> str | None:
    """The source that the metric's oldest expression reads."""
    found = [metric.expressions[version] for version in sorted(metric.expressions)]
    return next((pair[0] for pair in found if pair is not None), None)


def _versions(metric: Metric) -> tuple[str, str]:
    offered = sorted(v for v, pair in metric.expressions.items() if pair is not None)
    ended = [v for v, pair in metric.expressions.items() if pair is None]
    since = str(offered[0] // 10000) if offered and offered[0] > 140000 else ""
    until = str(min(ended) // 10000 - 1) if ended else ""
    return since, until


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(render())
