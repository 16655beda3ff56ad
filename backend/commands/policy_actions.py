"""What the commands of ``run.py policy`` do, and ``run.py rollback``.

Where a tuner is at work it carries them out; without one we act ourselves, as a tuner that does
nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.commands.asking import ask_tuner, open_for_reading, operator, tuner_is_at_work
from backend.commands.policy_text import (
    Units,
    difference_document,
    difference_lines,
    list_cells,
    list_document,
    units_of,
    version_document,
    version_lines,
)
from backend.components import Components, build_components
from backend.config import Settings
from backend.control_commands import check_restarts
from backend.domain.clock import SystemClock
from backend.domain.modes import CommandKind
from backend.domain.policies import GenomeRecord, PolicyVersionRecord
from backend.domain.version_difference import difference
from backend.errors import ConfigError
from backend.evolution.archive import deployed
from backend.evolution.present import present_genome, told
from backend.freeze import is_frozen
from backend.policy_versions import ALL_VERSIONS
from backend.printable import printable
from backend.protocols import TelemetryReader
from backend.servers import embedded_server
from backend.telemetry import SqlStore, open_store
from backend.telemetry.codec import to_document

_WIDE = 240
"""Columns of a table that goes into a file or another program."""

ById = Mapping[int | None, PolicyVersionRecord]


# -- looking --------------------------------------------------------------------------------------


def print_versions(settings: Settings, limit: int, *, as_json: bool) -> None:
    """Print the newest versions, the newest last."""
    with closing(open_for_reading(settings)) as store:
        versions, units = _versions(store)
    shown = list(versions.values())[-limit:]
    if as_json:
        _print_json(list_document(shown, versions, units))
        return
    if not shown:
        typer.echo("There is no policy version yet: the tuner makes the first one.")
        return
    table = Table()
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("made", no_wrap=True)
    for title in ("by", "changed", "index", ""):
        table.add_column(title)
    for version in shown:
        cells = list_cells(version, versions.get(version.parent_id), units)
        table.add_row(*(Text(printable(cell, keep="\n")) for cell in cells))
    console = Console()
    (console if console.is_terminal else Console(width=_WIDE)).print(table)


def print_version(settings: Settings, version_id: int | None, *, as_json: bool) -> None:
    """Print all of a version; None: the active one.

    Raises:
        ConfigError: there is none.
    """
    with closing(open_for_reading(settings)) as store:
        versions, units = _versions(store)
        if version_id is None:
            version_id = next((v.id for v in versions.values() if v.active), None)
        version = _one(versions, version_id)
        trial = None if version.trial_id is None else store.trial(version.trial_id)
        genome = _genome_in_force(settings, store) if version.active else None
    if as_json:
        in_force = {"genome": genome and to_document(genome)} if version.active else {}
        _print_json({**version_document(version, trial), **in_force})
        return
    for line in version_lines(version, versions.get(version.parent_id), trial, units):
        typer.echo(printable(line, keep="\n"))
    if version.active:
        typer.echo(f"Genome in force: {told(genome) if genome else 'that of the settings'}")


def print_difference(settings: Settings, first: int, second: int, *, as_json: bool) -> None:
    """Print what is different in the second version.

    Raises:
        ConfigError: there is no such version.
    """
    with closing(open_for_reading(settings)) as store:
        versions, units = _versions(store)
    found = difference(_one(versions, first), _one(versions, second))
    if as_json:
        _print_json({"from": first, "to": second, **difference_document(found, units)})
        return
    typer.echo(f"From policy version {first} to {second}:")
    for line in difference_lines(found, units):
        typer.echo(printable(line, keep="\n"))


# -- going to a version ---------------------------------------------------------------------------


def deploy(settings: Settings, version_id: int) -> str:
    """Deploy a version, as an operator's change like any other; tells the result.

    Raises:
        ConfigError: there is no such version, or nothing may be changed here.
        FrozenError: the freeze switch is on.
        AdjustmentError: it was refused, or the tuner did not answer in time.
    """

    def act(parts: Components) -> str:
        wanted = parts.deployment.versions.find(version_id)
        parts.deployment.frozen = is_frozen(parts.store)
        parts.deployment.may_act()
        if not parts.info.can("alter_system"):
            raise ConfigError(
                "this server does not let us change settings",
                remedy=parts.info.missing.get("alter_system"),
            )
        values = parts.deployment.values_under(wanted)
        check_restarts(parts, values, SystemClock())
        parts.budget.check(parts.deployment.present.replace(values))
        note = f"version {wanted.id} deployed by hand"
        return f"deployed; {parts.deployment.go_to(wanted, author=operator(), note=note).told}"

    return _asked(settings, CommandKind.DEPLOY_VERSION, {"version_id": version_id}, act)


def roll_back(settings: Settings, to: int | None) -> str:
    """Go back to policy version ``to`` (default: the one before the present); tells the result.

    Raises:
        ConfigError: there is no such version.
        AdjustmentError: it was refused, or the tuner did not answer in time.
    """

    def act(parts: Components) -> str:
        wanted = parts.deployment.version_to_return_to(to)
        note = f"rolled back to version {wanted.id}"
        return f"rolled back; {parts.deployment.go_to(wanted, author=operator(), note=note).told}"

    payload = {} if to is None else {"version_id": to}
    return _asked(settings, CommandKind.ROLL_BACK, payload, act)


def _asked(
    settings: Settings,
    kind: CommandKind,
    payload: Mapping[str, Any],
    act: Callable[[Components], str],
) -> str:
    """Have the tuner at work carry out a command; without one, act."""
    with closing(open_store(settings.store_url)) as store:
        if tuner_is_at_work(store):
            return ask_tuner(store, kind, payload)
    server = embedded_server(settings) if settings.is_embedded else None
    running = server is None or server.is_running()
    try:
        with closing(build_components(settings, SystemClock())) as parts:
            return act(parts)
    finally:
        if server is not None and not running:
            server.stop()


# -- inside ---------------------------------------------------------------------------------------


def _versions(store: TelemetryReader) -> tuple[ById, Units]:
    versions = {v.id: v for v in store.policy_versions(limit=ALL_VERSIONS)}
    return versions, units_of(store.knob_statuses())


def _genome_in_force(settings: Settings, store: SqlStore) -> GenomeRecord | None:
    """Level 2's genome that the tuner works with, or would begin with; None: the settings' own.

    Genomes are no part of a version: they change how is learnt, not what is deployed, and are
    chosen anew by workload.
    """
    if not tuner_is_at_work(store):
        return present_genome(settings, store)[1]
    status = store.status()
    records = deployed(store) if status else ()
    return next((r for r in records if status and r.id == status.genome), None)


def _one(versions: ById, version_id: int | None) -> PolicyVersionRecord:
    version = versions.get(version_id)
    if version is None:
        which = "" if version_id is None else f" {version_id}"
        raise ConfigError(
            f"there is no policy version{which}",
            remedy="python run.py policy list shows them",
        )
    return version


def _print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
