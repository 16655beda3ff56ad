"""The final report as plain text and as a printable HTML page."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from backend.errors import StoreError
from backend.report_data import FinalReport, Measured
from backend.telemetry import wording

TEMPLATE = "performance.html"
_WIDTH, _HEIGHT, _MARGIN = 720.0, 180.0, 8.0

_MEASURES: tuple[tuple[str, str, str], ...] = (
    ("latency_index", "latency index", "number"),
    ("mean_ms", "mean, all statements", "ms"),
    ("client_p50_ms", "clients, median", "ms"),
    ("client_p95_ms", "clients, 95th percentile", "ms"),
    ("client_p99_ms", "clients, 99th percentile", "ms"),
    ("throughput_per_s", "completed a second", "number"),
    ("cpu_percent", "CPU", "percent"),
    ("quality", "sample quality", "number"),
)


# -- wording --------------------------------------------------------------------------------


def verdict_text(report: FinalReport) -> str:
    """Return the one sentence that a reader in a hurry needs."""
    if report.improvement is None:
        return "No comparison of the final with the initial configuration was made."
    bounds = wording.interval(report.ci_low, report.ci_high)
    level = f"{(report.confidence or 0) * 100:g} % confidence"
    sure = f" ({bounds}, at {level})" if bounds else ""
    low, high = report.ci_low, report.ci_high
    if low is not None and low > 0:
        return f"The latency index is {wording.percent(report.improvement)} lower{sure}."
    if high is not None and high < 0:
        return f"The latency index is {wording.percent(-report.improvement)} HIGHER{sure}."
    change = wording.percent(report.improvement, signed=True)
    return f"No difference is proven: {change} saved{sure}."


def _measure_text(value: float | None, kind: str) -> str:
    if kind == "ms":
        return wording.milliseconds(value)
    if kind == "percent":
        return wording.percent(None if value is None else value / 100)
    return wording.number(value)


@dataclass(frozen=True)
class Table:
    """A heading, column titles and rows of text; ``empty`` is said where there are no rows.

    ``wide`` takes a page's whole width; ``upright`` has a column for each row in plain text.
    """

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str
    wide: bool = False
    upright: bool = False


def tables(report: FinalReport) -> list[Table]:
    """Return the report's tables in reading order."""
    return [
        _comparison(report),
        _configuration(report),
        _phases(report),
        _query_classes(report),
        _counts(report),
        _trials(report),
        _versions(report),
        _changes(report),
        _events(report),
    ]


def _comparison(report: FinalReport) -> Table:
    rows = []
    for name, title, kind in _MEASURES:
        before, after = getattr(report.baseline, name), getattr(report.final, name)
        if before is None and after is None:
            continue
        change = after / before - 1 if before and after is not None else None
        cells = [_measure_text(before, kind), _measure_text(after, kind)]
        rows.append([title, *cells, wording.percent(change, signed=True)])
    what = {
        "final comparison": "Initial and final configuration, interleaved",
        "phases": "Baseline and optimised phase (at different times: the load differs too)",
    }
    return Table(
        what.get(report.compared, "Initial and final configuration"),
        ["", "initial", "final", "change"],
        rows if report.compared != "nothing" else [],
        "Not enough was measured to compare.",
    )


def _configuration(report: FinalReport) -> Table:
    rows = [
        [
            name,
            wording.knob_text(_any(knob["value"]), _any(knob["unit"])),
            wording.knob_text(_any(knob["default"]), _any(knob["unit"]))
            if knob["default"] is not None
            else wording.NOTHING,
        ]
        for name, knob in report.configuration.items()
    ]
    empty = "The server's own configuration stands: nothing was changed for good."
    return Table("Final configuration", ["knob", "value", "default"], rows, empty)


def _phases(report: FinalReport) -> Table:
    def row(phase: str, measured: Measured) -> list[str]:
        cells = [_measure_text(getattr(measured, name), kind) for name, _, kind in _MEASURES]
        return [phase, str(measured.windows), *cells]

    rows = [row(phase, measured) for phase, measured in report.phases.items() if measured.windows]
    columns = ["phase", "windows", *(title for _, title, _ in _MEASURES)]
    heading = "By phase, under the deployed configuration"
    return Table(heading, columns, rows, "No window was measured.", wide=True, upright=True)


def _query_classes(report: FinalReport) -> Table:
    rows = [
        [
            _short(_any(c["text"]) or str(c["key"])),
            wording.milliseconds(_any(c["incumbent_ms"])),
            wording.milliseconds(_any(c["candidate_ms"])),
            wording.percent(_any(c["effect"]), signed=True),
            wording.interval(_any(c["ci_low"]), _any(c["ci_high"]), signed=True),
        ]
        for c in report.query_classes
    ]
    columns = ["statement", "initial mean", "final mean", "change", "interval"]
    return Table("Query classes", columns, rows, "No query class was compared.", wide=True)


def _counts(report: FinalReport) -> Table:
    both: Mapping[str, Mapping[str, int]] = _any(report.trials["by_kind_and_verdict"])
    rows = [
        [kind, ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))]
        for kind, counts in both.items()
    ]
    return Table("Trials by kind", ["kind", "verdicts"], rows, "No trial was made.")


def _trials(report: FinalReport) -> Table:
    rows = [
        [
            str(t["id"]),
            t["kind"],
            _knobs(report, t["after"]),
            wording.percent(t["effect"], signed=True),
            wording.interval(t["ci_low"], t["ci_high"], signed=True),
            t["verdict"] or "unfinished",
            "; ".join(t["reasons"]),
        ]
        for t in _any(report.trials["list"])
    ]
    columns = ["trial", "kind", "candidate", "effect", "interval", "verdict", "why"]
    return Table("Every trial", columns, rows, "No trial was made.", wide=True)


def _versions(report: FinalReport) -> Table:
    rows = [
        [
            str(v["id"]),
            str(v["created_at"])[:19],
            str(v["author"]),
            _knobs(report, _any(v["config"])) or "the server's own",
            wording.number(_any(v["index"])),
            "active" if v["active"] else "",
        ]
        for v in report.policy_versions
    ]
    columns = ["version", "since (UTC)", "author", "configuration", "index", ""]
    return Table("Policy versions", columns, rows, "Nothing was deployed.", wide=True)


def _changes(report: FinalReport) -> Table:
    rows = [
        [
            str(c["created_at"])[:19],
            str(c["actor"]),
            str(c["knob"]),
            wording.knob_text(_any(c["before_value"]), _unit(report, str(c["knob"]))),
            wording.knob_text(_any(c["after_value"]), _unit(report, str(c["knob"]))),
            str(c["state"]),
        ]
        for c in report.changes
    ]
    columns = ["when (UTC)", "by", "knob", "before", "after", "became"]
    return Table("Changes on the server", columns, rows, "Nothing was changed.", wide=True)


def _events(report: FinalReport) -> Table:
    rows = [
        [str(e["at"])[:19], level, str(e["message"])]
        for level in ("error", "warning")
        for e in _any(report.events.get(level, {}).get("newest", []))
    ]
    columns = ["when (UTC)", "level", "message"]
    return Table("Warnings and errors", columns, rows, "None.", wide=True)


def _knobs(report: FinalReport, config: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} = {wording.knob_text(value, _unit(report, name))}"
        for name, value in sorted(config.items())
    )


def _unit(report: FinalReport, knob: str) -> str | None:
    return report.units.get(knob)


def _short(text: str, length: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def _any(value: object) -> Any:
    """A value of the report's JSON-like parts, whose type the tables know."""
    return value


def facts(report: FinalReport) -> list[tuple[str, str]]:
    """Return what the report is about: server, workload, time."""
    workload = ", ".join(f"{name} {value}" for name, value in report.workload.items())
    address, version = report.server["address"], report.server["version"]
    found = [
        ("Server", f"{address} {version}".strip() or "unknown"),
        ("Workload", workload or "unknown"),
        ("Started", wording.moment(report.started_at)),
        ("Written", wording.moment(report.generated_at)),
    ]
    if report.comparison is not None:
        found.append(
            (
                "Evidence",
                f"{report.comparison['blocks']} blocks in random order, one log ratio each",
            )
        )
    return found


# -- text -----------------------------------------------------------------------------------


def to_text(report: FinalReport) -> str:
    """Return the report as plain text."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: FinalReport) -> Iterator[str]:
    yield "FINAL REPORT"
    yield ""
    yield verdict_text(report)
    yield ""
    for name, value in facts(report):
        yield f"{name + ':':<10} {_one_line(value)}"
    for table in tables(report):
        yield ""
        yield table.heading
        yield "-" * len(table.heading)
        if not table.rows:
            yield table.empty
        elif table.upright:
            yield from _aligned([list(r) for r in zip(table.columns, *table.rows, strict=True)])
        else:
            yield from _aligned([list(table.columns), *map(list, table.rows)])


def _one_line(text: str) -> str:
    """Keep control characters of foreign texts away from terminals."""
    return "".join(c if c.isprintable() else " " for c in text)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    cells = [[_one_line(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


# -- page -----------------------------------------------------------------------------------


def to_html(report: FinalReport) -> str:
    """Return the report as one self-contained page; every foreign text is escaped.

    Raises:
        StoreError: the template is missing from the installation.
    """
    return _template().render(
        report=report,
        verdict=verdict_text(report),
        better=report.ci_low is not None and report.ci_low > 0,
        facts=facts(report),
        tables=tables(report),
        trend=_trend(report),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _source(name: str) -> str:
    """Read a template from the source tree, or from where a wheel puts it."""
    beside = Path(__file__).resolve().parents[1] / "templates" / name
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    try:
        folder = importlib.resources.files("dashboard.templates")
        return folder.joinpath(name).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise StoreError(
            f"the report's template {name} is missing", remedy="install the package again"
        ) from error


@dataclass(frozen=True)
class Trend:
    """A line in SVG coordinates: y grows downwards."""

    width: float
    height: float
    points: str
    reference_y: float
    low: str
    high: str
    last: str


def _trend(report: FinalReport) -> Trend | None:
    """Scale the index's trend into the drawing; None where there are too few points."""
    points = report.index_trend
    if len(points) < 2:
        return None
    values = [value for _, value in points] + [1.0]
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    last_s = points[-1][0] or 1.0

    def y(value: float) -> float:
        return _MARGIN + (high - value) / spread * (_HEIGHT - 2 * _MARGIN)

    drawn = " ".join(f"{seconds / last_s * _WIDTH:.1f},{y(value):.1f}" for seconds, value in points)
    return Trend(
        width=_WIDTH,
        height=_HEIGHT,
        points=drawn,
        reference_y=y(1.0),
        low=wording.number(low),
        high=wording.number(high),
        last=wording.duration(last_s),
    )
