"""What the final report's pages hold: a sentence, facts and tables of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.reporting.data import FinalReport
from backend.reporting.measures import Measured
from backend.telemetry import wording

_MEASURES: tuple[tuple[str, str, str], ...] = (
    ("latency_index", "latency index", "number"),
    ("latency_index_p50", "index, median", "number"),
    ("latency_index_p95", "index, 95th percentile", "number"),
    ("mean_ms", "mean, all statements", "ms"),
    ("client_p50_ms", "clients, median", "ms"),
    ("client_p95_ms", "clients, 95th percentile", "ms"),
    ("client_p99_ms", "clients, 99th percentile", "ms"),
    ("throughput_per_s", "completed a second", "number"),
    ("cpu_percent", "CPU", "percent"),
    ("quality", "sample quality", "number"),
)


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

    ``wide`` takes a page's whole width; ``upright`` has a column for each row in plain text;
    ``note`` is said below.
    """

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str
    wide: bool = False
    upright: bool = False
    note: str = ""


def tables(report: FinalReport) -> list[Table]:
    """Return the report's tables in reading order."""
    return [
        _comparison(report),
        _configuration(report),
        _phases(report),
        *_acts(report),
        _levels(report),
        *_policy_updates(report),
        *_rollbacks(report),
        *_genomes(report),
        _query_classes(report),
        *_steering(report),
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

    phases = {**report.phases, **{f"{half} half": m for half, m in report.by_load.items()}}
    rows = [row(phase, measured) for phase, measured in phases.items() if measured.windows]
    columns = ["phase", "windows", *(title for _, title, _ in _MEASURES)]
    heading = "By phase, under the deployed configuration"
    return Table(heading, columns, rows, "No window was measured.", wide=True, upright=True)


def _acts(report: FinalReport) -> Iterator[Table]:
    if not report.acts:
        return
    rows = [
        [
            _short(str(act["title"]), 48),
            str(act["started_at"])[11:19],
            str(_any(act["measured"])["windows"]),
            *(_measure_text(_any(act["measured"])[name], kind) for name, _, kind in _MEASURES),
        ]
        for act in report.acts
    ]
    columns = ["from when", "UTC", "windows", *(title for _, title, _ in _MEASURES)]
    heading = "By act of the demonstration, under the deployed configuration"
    yield Table(heading, columns, rows, "", wide=True)


def _levels(report: FinalReport) -> Table:
    """What each level tried and what stood the gate."""
    zero, one, two = (_any(report.levels[f"level {number}"]) for number in range(3))

    def proposals(level: Mapping[str, Any]) -> list[str]:
        tried = f"probes: {level['probes']}, promotion trials: {level['promotions']}"
        effects = ", ".join(wording.percent(effect, signed=True) for effect in level["effects"])
        by_trials = f", latency index by their own trials {effects}" if effects else ""
        return [tried, f"promoted: {level['promoted']}{by_trials}"]

    watched = f"probations: {one['probations']}, rechecks: {one['rechecks']}"
    rows = [
        ["0, the knob agent", *proposals(zero)],
        *_plan_agent(report),
        ["1, its policies", *proposals(one)],
        ["1, learning them", f"updates learnt: {one['updates']}", f"deployed: {one['deployed']}"],
        ["1, watching", watched, f"undone: {one['undone']}"],
        ["2, evolution", f"genomes measured: {two['measured']}", f"deployed: {two['deployed']}"],
    ]
    note = str(_any(report.levels["ablation"])["note"])
    return Table("By level", ["level", "tried", "came to"], rows, "", wide=True, note=note)


def _policy_updates(report: FinalReport) -> Iterator[Table]:
    updates = _any(report.levels["level 1"])["policy_updates"]
    if not updates:
        return
    rows = [
        [
            str(u["at"])[:19],
            u["policy"],
            f"{u['learnt_from']}, {u['judged_on']}",
            wording.percent(u["gain"], signed=True),
            wording.interval(u["gain_low"], u["gain_high"], signed=True),
            "deployed" if u["deployed"] else "not deployed",
            _short(u["reason"]),
        ]
        for u in updates
    ]
    columns = ["when (UTC)", "policy", "learnt from, judged on", "gain", "interval", "", "why"]
    yield Table("Policy updates", columns, rows, "", wide=True)


def _rollbacks(report: FinalReport) -> Iterator[Table]:
    undone = _any(report.levels["level 1"])["rollbacks"]
    if undone:
        rows = [[str(one["at"])[:19], one["message"]] for one in undone]
        yield Table("Rollbacks", ["when (UTC)", "what and why"], rows, "", wide=True)


def _genomes(report: FinalReport) -> Iterator[Table]:
    genomes = _any(report.levels["level 2"])["genomes"]
    if not genomes:
        return
    rows = [
        [
            str(g["at"])[:19],
            wording.number(g["fitness"].get("trials_to_95")),
            wording.percent(g["fitness"].get("regret")),
            "deployed" if g["deployed"] else "not deployed",
            _short(g["reason"]),
        ]
        for g in genomes
    ]
    columns = ["when (UTC)", "trials to 95 % of the gain", "gain missing over time", "", "why"]
    yield Table("Genomes, as judged", columns, rows, "", wide=True)


def _plan_agent(report: FinalReport) -> Iterator[list[str]]:
    if report.steering:
        tried = f"plans of {sum(_any(report.steering['states']).values())} query classes"
        yield ["0, the plan agent", tried, f"classes steered: {report.steering['steered']}"]


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


def _steering(report: FinalReport) -> Iterator[Table]:
    if not report.steering:
        return
    rows = [
        [
            _short(c["text"]),
            c["hint_set"],
            wording.percent(c["effect"], signed=True),
            wording.interval(c["ci_low"], c["ci_high"], signed=True),
            wording.percent(c["service_effect"], signed=True),
            wording.interval(c["service_low"], c["service_high"], signed=True)
            or c["service_hindrance"],
            "steered" if c["steered"] else _short(f"{c['state']} {c['withdrawn_because']}".strip()),
        ]
        for c in _any(report.steering["classes"])
    ]
    columns = ["statement", "hint set", "proven", "interval", "in service", "interval", "now"]
    spent = wording.duration(_any(report.steering["explored_s"]))
    yield Table(
        f"Query steering, after trying plans for {spent}",
        columns, rows, "No hint set was proven faster than a default plan.", wide=True,
    )  # fmt: skip


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
