"""What the commands of ``run.py steering`` do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.commands.asking import ask_tuner, open_for_reading, operator, tuner_is_at_work
from backend.commands.steering_server import KeptStatements
from backend.config import Settings
from backend.domain.clock import SystemClock
from backend.domain.modes import CommandKind, Mode
from backend.domain.plans import HintSet
from backend.domain.steering import SteeredClassRecord, SteeringMode
from backend.errors import AutopilotError, SteeringError
from backend.policy_versions import PolicyVersions
from backend.protocols import TelemetryReader
from backend.steering.export.hint_plan import HintTable, hint_comments, hint_table, proven_classes
from backend.steering.export.misestimate_report import misestimate_report
from backend.steering.export.role_settings import PlanPairs, role_proposals, role_settings
from backend.steering.register import SteeringRegister
from backend.steering.statements.query_keys import with_query_keys
from backend.telemetry import open_store, wording

_MOST_RUNS = 100_000
_SHOWN = 60
_WIDE = 240
"""Columns of a table that goes into a file or another program."""


def print_classes(settings: Settings, beginnings: Sequence[str]) -> None:
    """Print a table of the classes, or of those whose fingerprints begin so."""
    with closing(open_for_reading(settings)) as store:
        records = _chosen(store.steered_classes(), beginnings)
        status = store.status()
    if not records:
        typer.echo("No query class is known yet: no statement has been explored.")
        return
    mode = status.mode if status else settings.effective_mode
    table = Table()
    table.add_column("class", no_wrap=True)  # to be copied
    for title in ("state", "hint set", "effect", "interval", "steered", "statement"):
        table.add_column(title)
    for record in records:
        table.add_row(*map(Text, _cells(record, mode)))
    console = Console()
    (console if console.is_terminal else Console(width=_WIDE)).print(table)


def comments(settings: Settings, beginnings: Sequence[str]) -> str:
    """Hint comments for pg_hint_plan."""
    with closing(open_for_reading(settings)) as store:
        records = _chosen(store.steered_classes(), beginnings)
    return hint_comments(proven_classes(records), _now())


def table_rows(settings: Settings, beginnings: Sequence[str], layout: HintTable | None) -> str:
    """Rows for pg_hint_plan's table; the layout is the server's where none is given.

    Raises:
        SteeringError: the server's version is not known.
    """
    with closing(open_for_reading(settings)) as store:
        proven = proven_classes(_chosen(store.steered_classes(), beginnings))
        queries = store.query_classes()
        layout = layout or _layout(store)
    found = with_query_keys(proven, queries)
    texts = {key: query.text for key, query in queries.items()}
    return hint_table(found, _now(), layout=layout, texts=texts)


def settings_of_role(settings: Settings, role: str | None, database: str | None) -> str:
    """``ALTER ROLE ... SET`` where one hint set suits all explored classes.

    Plans are compared on the server where it can be reached; without it only what was run counts.
    """
    with closing(open_for_reading(settings)) as store:
        records = store.steered_classes()
        runs = store.plan_runs(limit=_MOST_RUNS)
    plans = _plan_pairs(settings, records)
    gain = settings.steering.min_gain
    proposals = role_proposals(records, runs, min_gain=gain, plans=plans)
    return role_settings(proposals, _now(), role=role, database=database)


def misestimates(settings: Settings, beginnings: Sequence[str]) -> str:
    """The report of misestimates: of the proven classes, or of those that are named.

    Raises:
        SteeringError, ServerConnectionError: the server cannot be asked.
    """
    with closing(open_for_reading(settings)) as store:
        known = store.steered_classes()
    records = _chosen(known, beginnings) if beginnings else proven_classes(known)
    with closing(KeptStatements(settings)) as kept:
        findings = [kept.findings(record) for record in records]
        existing = kept.existing_statistics()
    return misestimate_report(findings, _now(), existing)


def set_mode(settings: Settings, beginning: str, mode: SteeringMode) -> str:
    """Have an operator's decision about a class carried out; tells the result.

    Raises:
        SteeringError: no or several classes begin so, or none of its hint sets was ever proven.
        AdjustmentError: the tuner refused, or did not answer in time.
    """
    with closing(open_for_reading(settings)) as store:
        records = _chosen(store.steered_classes(), [beginning])
    if len(records) > 1:
        found = ", ".join(
            f"{record.key.fingerprint} (search_path {record.key.search_path})" for record in records
        )
        raise SteeringError(
            f"several classes begin with {beginning}: {found}",
            remedy="give more characters; those that differ by search_path alone can be switched "
            "on the page Queries",
        )
    key = records[0].key
    with closing(open_store(settings.store_url)) as store:
        if tuner_is_at_work(store):
            return ask_tuner(
                store,
                CommandKind.STEER,
                {
                    "fingerprint": key.fingerprint,
                    "search_path": key.search_path,
                    "mode": mode.value,
                },
            )
        clock = SystemClock()
        versions = PolicyVersions(store, clock)
        versions.go_on()
        SteeringRegister(store, clock, versions=versions).set_mode(key, mode, operator())
    return f"{key.fingerprint}: {mode.value}, from the tuner's next start on (none runs now)"


# -- inside ---------------------------------------------------------------------------------------


def _chosen(
    records: Sequence[SteeredClassRecord], beginnings: Sequence[str]
) -> Sequence[SteeredClassRecord]:
    """The classes whose fingerprints begin so; all where nothing is asked for.

    Raises:
        SteeringError: there is none for one of the beginnings.
    """
    if not beginnings:
        return records
    for beginning in beginnings:
        if not beginning or not any(r.key.fingerprint.startswith(beginning) for r in records):
            raise SteeringError(
                f"no query class has a fingerprint that begins with {beginning!r:.40}",
                remedy="python run.py steering list shows them",
            )
    return [r for r in records if r.key.fingerprint.startswith(tuple(beginnings))]


def _cells(record: SteeredClassRecord, mode: Mode) -> list[str]:
    evidence = record.evidence
    state = record.state.value
    if record.mode is not SteeringMode.AUTO:
        state += f", {record.mode.value}"
    if record.reason:
        state += f": {_short(record.reason)}"
    return [
        record.key.fingerprint,
        state,
        evidence.hint_set if evidence else wording.NOTHING,
        wording.percent(evidence.effect if evidence else None, signed=True),
        wording.interval(evidence.ci_low, evidence.ci_high, signed=True) if evidence else "",
        "yes" if record.is_served(mode) else "no",
        _short(record.text),
    ]


def _short(text: str) -> str:
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= _SHOWN else f"{flat[: _SHOWN - 1]}…"


def _layout(store: TelemetryReader) -> HintTable:
    status = store.status()
    major = (status.server_version if status else "").partition(".")[0]
    if not major.isdigit():
        raise SteeringError(
            "the server's version is not known yet, and the table's layout depends on it",
            remedy="say which pg_hint_plan it is for: --pg-hint-plan 1.6 or --pg-hint-plan 1.7",
        )
    return HintTable.of_server(int(major))


def _plan_pairs(settings: Settings, records: Sequence[SteeredClassRecord]) -> PlanPairs:
    """Which plans the proven hint sets lead to in each class; nothing where nobody can tell."""
    hint_sets = dict.fromkeys(
        HintSet(record.evidence.hint_set, record.evidence.settings)
        for record in proven_classes(records)
        if record.evidence is not None
    )
    try:
        with closing(KeptStatements(settings)) as kept:
            return kept.plan_pairs([record.key for record in records], hint_sets)
    except AutopilotError as error:
        typer.echo(f"Only measured runs count, plans are not compared: {error}", err=True)
        return {}


def _now() -> datetime:
    return datetime.now(timezone.utc)
