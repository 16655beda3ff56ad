"""The metrics catalogue: what is read from a server, as data.

``backend/catalog/postgresql/metrics.yaml`` holds three lists. A *source* is a FROM clause that
yields exactly one row. A *metric* is an SQL expression over a source, by minimum server version,
with unit, kind and meaning. A *derived* metric is a formula over the rates and levels of a
window. This module reads and checks the file, and picks what a given server version offers.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml

from backend.errors import CatalogError

MetricKind = Literal["counter", "gauge"]
# Names that a derived metric's formula may use besides the metrics: see docs/metrics.md.
WINDOW_NAMES = ("query_calls", "query_exec_time_ms", "query_rows", "duration_s")

_KINDS = ("counter", "gauge")


@dataclass(frozen=True)
class MetricSource:
    """A FROM clause that yields exactly one row, by minimum server version.

    Args:
        name: its key in the file.
        from_sql: minimum ``server_version_num`` → FROM clause (with WHERE, without the keyword).
        reset_sql: minimum version → expression that tells when its counters were reset, if any.
        every_s: how long a reading is good for; 0 reads it in every snapshot.
        description: what it costs and why it is there.
    """

    name: str
    from_sql: Mapping[int, str | None]
    reset_sql: Mapping[int, str | None] = field(default_factory=dict)
    every_s: float = 0.0
    description: str = ""


@dataclass(frozen=True)
class Metric:
    """One reading: a counter that only grows, or a gauge (a level).

    ``expressions`` maps a minimum ``server_version_num`` to (source, SQL expression), or to None
    from where on the server does not offer it any more. Metrics of the host have no expressions:
    backend/host_metrics.py reads them.
    """

    name: str
    kind: MetricKind
    unit: str
    description: str
    expressions: Mapping[int, tuple[str, str] | None] = field(default_factory=dict)

    def at(self, version: int) -> tuple[str, str] | None:
        """The (source, expression) for a server version, None where it offers none."""
        found: tuple[str, str] | None = _newest_up_to(self.expressions, version)
        return found


@dataclass(frozen=True)
class DerivedMetric:
    """A level computed from a window: ``formula`` over rates (per second) and levels."""

    name: str
    unit: str
    formula: str
    description: str

    def compute(self, values: Mapping[str, float]) -> float | None:
        """The value, or None where an input is missing or the divisor is 0."""
        try:
            result = _compiled(self.formula)(values)
        except (KeyError, ZeroDivisionError, OverflowError):
            return None
        return result if math.isfinite(result) else None


@dataclass(frozen=True)
class SourcePlan:
    """What one source contributes on one server version: a SELECT of one row."""

    source: MetricSource
    select_list: str
    from_sql: str
    names: tuple[str, ...]
    kinds: tuple[MetricKind, ...]
    has_reset: bool

    @property
    def statement(self) -> str:
        """The SELECT; it holds nothing but the catalogue's own text."""
        return f"SELECT {self.select_list} FROM {self.from_sql}"  # nosec B608 # noqa: S608


@dataclass(frozen=True)
class MetricsCatalogue:
    """All sources, metrics and derived metrics, by name."""

    sources: Mapping[str, MetricSource]
    metrics: Mapping[str, Metric]
    derived: Mapping[str, DerivedMetric]

    def plan(self, version: int, names: Iterable[str] | None = None) -> Sequence[SourcePlan]:
        """The reads that give the metrics ``names`` (None: all) on a server version.

        Raises:
            CatalogError: a name is not in the catalogue.
        """
        wanted = self.metrics if names is None else self._checked(names)
        by_source: dict[str, list[tuple[str, str]]] = {}
        for name in wanted:
            found = self.metrics[name].at(version)
            if found is not None:
                by_source.setdefault(found[0], []).append((name, found[1]))
        plans = []
        for source_name, pairs in by_source.items():
            source = self.sources[source_name]
            from_sql = _newest_up_to(source.from_sql, version)
            if from_sql is None:
                continue
            columns = [f"({sql})::float8 AS {name}" for name, sql in pairs]
            reset = _newest_up_to(source.reset_sql, version)
            if reset is not None:
                columns.append(f"({reset}) AS {source_name}_reset_at")
            plans.append(
                SourcePlan(
                    source=source,
                    select_list=", ".join(columns),
                    from_sql=from_sql,
                    names=tuple(name for name, _ in pairs),
                    kinds=tuple(self.metrics[name].kind for name, _ in pairs),
                    has_reset=reset is not None,
                )
            )
        return plans

    def _checked(self, names: Iterable[str]) -> Sequence[str]:
        listed = list(dict.fromkeys(names))
        unknown = [name for name in listed if name not in self.metrics]
        if unknown:
            raise CatalogError(
                f"no such metric: {', '.join(unknown)}",
                remedy="docs/metrics.md lists the metrics",
            )
        return listed


@lru_cache(maxsize=1)
def postgresql_metrics() -> MetricsCatalogue:
    """The catalogue that ships with the package.

    Raises:
        CatalogError: the file is malformed.
    """
    file = resources.files("backend.catalog").joinpath("postgresql", "metrics.yaml")
    return parse_metrics(file.read_text(encoding="utf-8"))


def parse_metrics(text: str) -> MetricsCatalogue:
    """Read a catalogue from YAML and check it.

    Raises:
        CatalogError: what is wrong, and with which entry.
    """
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # nosec B506
    except yaml.YAMLError as error:
        raise CatalogError(f"the metrics catalogue is not YAML: {error}") from None
    if not isinstance(data, dict) or set(data) != {"sources", "metrics", "host", "derived"}:
        raise CatalogError("the metrics catalogue needs sources, metrics, host and derived")
    sources = {name: _source(name, entry) for name, entry in data["sources"].items()}
    metrics = {name: _metric(name, entry, sources) for name, entry in data["metrics"].items()}
    for name, entry in data["host"].items():
        if name in metrics:
            raise CatalogError(f"metric {name} stands in the catalogue twice")
        _check_keys(f"host metric {name}", entry, {"kind", "unit", "description"}, set())
        metrics[name] = Metric(name, _kind(name, entry), entry["unit"], entry["description"])
    derived: dict[str, DerivedMetric] = {}
    for name, entry in data["derived"].items():
        derived[name] = _derived(name, entry, {*metrics, *derived, *WINDOW_NAMES})
    return MetricsCatalogue(sources, metrics, derived)


def _source(name: str, entry: Any) -> MetricSource:
    what = f"source {name}"
    _check_keys(what, entry, {"from", "description"}, {"reset", "every_s"})
    return MetricSource(
        name=name,
        from_sql=_by_version(what, entry["from"]),
        reset_sql=_by_version(what, entry.get("reset", {})),
        every_s=float(entry.get("every_s", 0)),
        description=entry["description"],
    )


def _metric(name: str, entry: Any, sources: Mapping[str, MetricSource]) -> Metric:
    what = f"metric {name}"
    if not name.isidentifier() or name != name.lower():
        raise CatalogError(f"{what}: the name is not snake_case")
    _check_keys(what, entry, {"source", "kind", "unit", "sql", "description"}, set())
    kind = _kind(name, entry)
    variants = entry["sql"] if isinstance(entry["sql"], dict) else {140000: entry["sql"]}
    expressions: dict[int, tuple[str, str] | None] = {}
    for version, variant in variants.items():
        source = entry["source"]
        if isinstance(variant, dict):
            _check_keys(what, variant, {"source", "sql"}, set())
            source, variant = variant["source"], variant["sql"]
        if not isinstance(version, int) or not isinstance(variant, (str, type(None))):
            raise CatalogError(f"{what}: sql maps server_version_num to an expression or null")
        if source not in sources:
            raise CatalogError(f"{what}: no such source {source!r}")
        if kind == "counter" and sources[source].every_s > 0:
            # A counter that is read less often than the snapshot would seem to stand still.
            raise CatalogError(f"{what}: a counter needs a source that is read every time")
        expressions[version] = None if variant is None else (source, variant)
    return Metric(name, kind, entry["unit"], entry["description"], expressions)


def _derived(name: str, entry: Any, known: set[str]) -> DerivedMetric:
    what = f"derived metric {name}"
    _check_keys(what, entry, {"unit", "formula", "description"}, set())
    unknown = _names_in(entry["formula"], what) - known
    if unknown:
        raise CatalogError(f"{what}: the formula uses unknown {', '.join(sorted(unknown))}")
    return DerivedMetric(name, entry["unit"], entry["formula"], entry["description"])


def _kind(name: str, entry: Mapping[str, Any]) -> MetricKind:
    kind: MetricKind = entry["kind"]
    if kind not in _KINDS:
        raise CatalogError(f"metric {name}: kind {kind!r} is none of {', '.join(_KINDS)}")
    return kind


def _check_keys(what: str, entry: Any, needed: set[str], allowed: set[str]) -> None:
    if not isinstance(entry, dict):
        raise CatalogError(f"{what}: not a mapping")
    missing, unknown = needed - set(entry), set(entry) - needed - allowed
    if missing or unknown:
        raise CatalogError(
            f"{what}: missing {', '.join(sorted(missing)) or 'nothing'}, "
            f"unknown {', '.join(sorted(map(str, unknown))) or 'nothing'}"
        )


def _by_version(what: str, entry: Any) -> dict[int, str | None]:
    variants = entry if isinstance(entry, dict) else {140000: entry}
    for version, text in variants.items():
        if not isinstance(version, int) or not isinstance(text, (str, type(None))):
            raise CatalogError(f"{what}: map server_version_num to SQL or null")
    return dict(variants)


def _newest_up_to(variants: Mapping[int, Any], version: int) -> Any:
    fitting = [minimum for minimum in variants if minimum <= version]
    return variants[max(fitting)] if fitting else None


# -- formulas ---------------------------------------------------------------------------------

_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _parse(formula: str, what: str) -> ast.expr:
    try:
        return ast.parse(formula, mode="eval").body
    except SyntaxError as error:
        raise CatalogError(f"{what}: {formula!r} is no formula: {error.msg}") from None


def _names_in(formula: str, what: str) -> set[str]:
    tree = _parse(formula, what)
    for node in ast.walk(tree):
        legal = isinstance(node, (ast.BinOp, ast.Name, ast.Load, *_OPERATORS)) or (
            isinstance(node, ast.Constant) and type(node.value) in (int, float)
        )
        if not legal:
            raise CatalogError(f"{what}: only names, numbers and + - * / in {formula!r}")
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@lru_cache(maxsize=256)
def _compiled(formula: str) -> Callable[[Mapping[str, float]], float]:
    """Turn a formula that was checked into a function, without eval()."""

    def build(node: ast.expr) -> Callable[[Mapping[str, float]], float]:
        if isinstance(node, ast.BinOp):
            left, right = build(node.left), build(node.right)
            combine = _OPERATORS[type(node.op)]
            return lambda values: combine(left(values), right(values))
        if isinstance(node, ast.Name):
            name = node.id
            return lambda values: values[name]
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            number = float(node.value)
            return lambda values: number
        raise CatalogError(f"only names, numbers and + - * / in {formula!r}")

    return build(_parse(formula, "formula"))
