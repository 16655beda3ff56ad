"""The final report as plain text and as a printable HTML page."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from backend.errors import StoreError
from backend.printable import printable
from backend.reporting.data import FinalReport
from backend.reporting.tables import facts, tables, verdict_text
from backend.telemetry import wording

TEMPLATE = "performance.html"
_WIDTH, _HEIGHT, _MARGIN = 720.0, 180.0, 8.0


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
        yield f"{name + ':':<10} {printable(value)}"
    for table in tables(report):
        yield ""
        yield table.heading
        yield "-" * len(table.heading)
        if not table.rows:
            yield table.empty
        elif table.upright:
            yield from aligned([list(r) for r in zip(table.columns, *table.rows, strict=True)])
        else:
            yield from aligned([list(table.columns), *map(list, table.rows)])
        if table.note:
            yield table.note


def aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Rows of cells as lines, column under column."""
    cells = [[printable(cell) for cell in row] for row in rows]
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
    return template(TEMPLATE).render(
        report=report,
        verdict=verdict_text(report),
        better=report.ci_low is not None and report.ci_low > 0,
        facts=facts(report),
        tables=tables(report),
        trend=_trend(report),
    )


@functools.cache
def template(name: str) -> jinja2.Template:
    """A template that escapes what it shows.

    Raises:
        StoreError: it is missing from the installation.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _source(name: str) -> str:
    """Read a template from the source tree, or from where a wheel puts it."""
    beside = Path(__file__).resolve().parents[2] / "templates" / name
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
