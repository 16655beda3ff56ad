"""The command line. Without a command: start everything and serve http://localhost:8050.

This is the one file that knows both the backend and the dashboard.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from backend.commands.options import (
    ConfigOption,
    DataDirOption,
    DsnOption,
    FastOption,
    ModeOption,
    PortOption,
    QueriesOption,
    ScaleOption,
    SeedOption,
    WorkloadOption,
)
from backend.commands.plan import plan, promotion
from backend.commands.policy import app as policy
from backend.commands.steering import app as steering
from backend.config import PathSettings, Settings
from backend.errors import AutopilotError
from backend.run_options import RunOptions

console = Console()
errors = Console(stderr=True)
app = typer.Typer(
    help="A self-hosted autopilot for PostgreSQL. Without a command it starts everything: the "
    "embedded PostgreSQL with a demo workload (or your server, with --dsn, in observe mode), the "
    "tuner, the watchdog and the pages on http://localhost:8050. Ctrl-C ends it.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(steering, name="steering")
app.add_typer(policy, name="policy")
app.add_typer(plan, name="plan")
app.add_typer(promotion, name="promotion")


def _options(
    config: str | None,
    dsn: str | None,
    data_dir: Path | None,
    *,
    duration_days: float | None = None,
    fast_mode: bool = False,
    **given: Any,
) -> RunOptions:
    """The command line as options; the address of a server travels in the environment."""
    if dsn:
        os.environ["DATABASE_URL"] = dsn
    overrides: dict[str, Any] = {}
    places = {
        "mode": ("mode",),
        "port": ("dashboard", "port"),
        "workload": ("workload", "name"),
        "scale": ("workload", "data_scale_factor"),
        "queries": ("workload", "queries_per_hour"),
        "seed": ("workload", "seed"),
    }
    for key, value in given.items():
        if value is None:
            continue
        section = overrides
        for part in places[key][:-1]:
            section = section.setdefault(part, {})
        section[places[key][-1]] = value
    if data_dir is not None:
        overrides["paths"] = PathSettings.under(data_dir)
    return RunOptions(config, overrides, duration_days, fast_mode)


# -- starting everything ----------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def everything(
    context: typer.Context,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    mode: ModeOption = None,
    port: PortOption = None,
    workload: WorkloadOption = None,
    scale: ScaleOption = None,
    queries: QueriesOption = None,
    seed: SeedOption = None,
    fast_mode: FastOption = False,
) -> None:
    """Start everything and run until Ctrl-C."""
    if context.invoked_subcommand is not None:
        _refuse_misplaced(context)
        return
    options = _options(
        config, dsn, data_dir, fast_mode=fast_mode, mode=mode, port=port, workload=workload,
        scale=scale, queries=queries, seed=seed,
    )  # fmt: skip
    raise typer.Exit(_supervise(options))


def _refuse_misplaced(context: typer.Context) -> None:
    """Options before a command would silently not apply to it."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name
        and getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(
            f"{', '.join(given)} must stand behind the command: "
            f"run.py {context.invoked_subcommand} {given[0]} ..."
        )


@app.command()
def demo(
    duration: Annotated[
        float, typer.Option("--duration", min=0.1, help="Simulated days to run.")
    ] = 1.0,
    queries: QueriesOption = None,
    workload: WorkloadOption = None,
    fast_mode: FastOption = False,
    scale: ScaleOption = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    port: PortOption = None,
) -> None:
    """Tune the embedded server from its defaults, then compare and write the final report.

    Ends by itself with an interleaved comparison of the final against the initial configuration
    in final_report.txt, .json and .html. An earlier run's store and checkpoints are set aside.
    """
    for name in ("DATABASE_URL", "PGHOST", "PGHOSTADDR", "PGSERVICE"):
        os.environ.pop(name, None)
    options = _options(
        config, None, data_dir, duration_days=duration, fast_mode=fast_mode, queries=queries,
        workload=workload, scale=scale, seed=seed, port=port,
    )  # fmt: skip
    settings = options.settings()
    if not settings.is_embedded:
        raise AutopilotError(
            f"the demo runs on the embedded server, and database.host is {settings.database.host}",
            remedy="leave database.host empty, or start run.py without demo",
        )
    from backend.commands.fresh_start import set_aside

    set_aside(settings)
    code = _supervise(replace(options, from_defaults=True))
    report = settings.paths.data_dir / "final_report.txt"
    if code == 0 and report.exists():
        typer.echo(report.read_text(encoding="utf-8"))
        typer.echo(f"Reports: {report}, .json and .html")
    raise typer.Exit(code)


@app.command()
def evolve(
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, help="Minutes to take, judging included.")
    ] = 20.0,
    store: Annotated[
        Optional[list[str]],
        typer.Option("--store", help="SQLite file or URL to learn from; may be given often."),
    ] = None,
    cores: Annotated[int, typer.Option("--cores", min=1, max=64, help="Processes.")] = 1,
    study: Annotated[
        Optional[str], typer.Option("--study", help="File or URL of the study to go on with.")
    ] = None,
    back: Annotated[
        bool, typer.Option("--back", help="Bring back the genome that stood before.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Evolve the learners' hyper-parameters (Level 2) from recorded measurements.

    Genomes (learning rates, network sizes, exploration, thresholds of the gate) compete.

    Each really learns, on targets fitted to what the store has recorded and on response models.

    The best is deployed only where it is proven faster on workloads that none of them saw.

    Nothing is tried on the server. It runs at the lowest priority, beside a tuner or without one.

    Ctrl-C ends it, and so may a kill: the same command goes on with what is finished.

    Examples: run.py evolve --minutes 60 --cores 4; run.py evolve --store first.db --store second.db
    """
    from backend.commands.evolve import back as go_back
    from backend.commands.evolve import evolve as run

    settings = _options(config, None, data_dir).settings()
    if back:
        go_back(settings, console)
    else:
        run(settings, console, minutes=minutes, stores=store or (), cores=cores, study=study)


def _supervise(options: RunOptions) -> int:
    settings = options.settings()
    from backend.evolution.schedule import EvolutionSchedule
    from backend.logs import configure_logging
    from backend.supervisor import EVOLUTION, READY, Supervisor
    from backend.telemetry import open_store

    configure_logging(settings, "supervisor")
    names = ["watchdog", "tuner"]
    if settings.is_embedded:
        names.insert(1, "workload")
    else:
        from backend.servers import greet

        for line in greet(settings):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if settings.dashboard.enabled:
        from dashboard.auth.accounts import Accounts

        Accounts(settings.dashboard)  # says now, and not in a child's log, what is missing
        names.insert(0, "dashboard")
        console.print(f"Pages: http://{settings.dashboard.host}:{settings.dashboard.port}")
    if settings.level2.enabled:
        names.append(EVOLUTION)
    commands = {name: [sys.executable, str(Path(__file__)), "process", name] for name in names}
    if settings.dashboard.enabled:
        _check_port_is_free(settings)
    store = open_store(settings.store_url)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    )  # fmt: skip
    try:
        with bar:
            task = bar.add_task("starting", total=1.0)

            def on_progress(text: str, share: float) -> None:
                bar.update(task, description=text, completed=share)
                if text == READY:
                    bar.stop()
                    console.print("Running. Ctrl-C ends it.")

            schedule = EvolutionSchedule(settings, store, time_scale=options.time_scale)
            supervisor = Supervisor(settings, options, store, commands, on_progress, schedule.due)
            return supervisor.run()
    except KeyboardInterrupt:
        return 0
    finally:
        store.close()


def _check_port_is_free(settings: Settings) -> None:
    host, port = settings.dashboard.host, settings.dashboard.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AutopilotError(
                f"the pages cannot be served on {host}:{port}: {error.strerror}",
                remedy="stop what listens there, or choose another port with --port",
            ) from None


@app.command(hidden=True)
def process(name: str) -> None:
    """Run one process of a run that the supervisor started."""
    options = RunOptions.from_environment()
    settings = options.settings()
    from backend.logs import configure_logging
    from backend.supervisor import stop_event_for_child

    configure_logging(settings, name)
    stop = stop_event_for_child(options.supervisor_pid or os.getppid())
    if name == "dashboard":
        raise typer.Exit(_dashboard(settings, options, stop))
    from backend.telemetry import open_store

    try:
        if name == "tuner":
            from backend.processes.tuner import tuner

            raise typer.Exit(tuner(settings, options, stop))
        if name == "watchdog":
            from backend.processes.watchdog import watchdog

            raise typer.Exit(watchdog(settings, stop))
        store = open_store(settings.store_url)
        if name == "workload":
            from backend.processes.workload import workload

            raise typer.Exit(workload(settings, options, store, stop))
        if name == "evolution":
            from backend.processes.evolution import evolution

            raise typer.Exit(evolution(settings, options, store, stop))
    except AutopilotError:
        logging.getLogger(name).exception("the process ends")
        raise
    raise typer.BadParameter(f"there is no process named {name!r}")


def _dashboard(settings: Settings, options: RunOptions, stop: Any) -> int:
    import threading

    from backend.telemetry import open_store
    from dashboard.app import create_app, serve
    from dashboard.services import QualityFloors

    store = open_store(settings.store_url)
    floors = QualityFloors(
        training=settings.level0.knob.quality_floor, trial=settings.level1.min_quality
    )
    level1 = settings.level1
    update_s = level1.update_interval / options.time_scale if level1.enabled else None
    pages = settings.dashboard
    dash_app = create_app(store, store, pages, floors, update_s, store.add_event)
    server = threading.Thread(
        target=serve,
        args=(dash_app, pages.host, pages.port, pages.trusted_proxy),
        name="pages",
        daemon=True,
    )
    server.start()
    while not stop.wait(0.5):
        if not server.is_alive():
            return 1
    return 0


# -- tools ------------------------------------------------------------------------------------


@app.command("setup-database")
def setup_database(
    scale: ScaleOption = None,
    seed: SeedOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check counts, keys and distributions.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Create the embedded server and load the demo store; goes on where it was interrupted."""
    settings = _options(config, None, data_dir, scale=scale, seed=seed).settings()
    from backend.commands.setup_database import set_up

    if not set_up(settings, console, verify=verify):
        raise typer.Exit(1)


@app.command()
def report(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Print what the store tells: trials, deployments, index, events."""
    settings = _options(config, None, data_dir).settings()
    from backend.commands.asking import open_for_reading

    store = open_for_reading(settings)
    try:
        store.print_summary(console)
    finally:
        store.close()


@app.command()
def train(
    store: Annotated[
        Optional[list[str]],
        typer.Option(
            "--store",
            help="A store to learn from: a SQLite file or a URL; may be given several times, the "
            "first one decides on the knobs. Default: the configured store.",
        ),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", help="Folder to write to. Default: where the tuner's next run starts from."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the training.")] = 0,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Train the knob agent from recorded measurements, of any number of stores and workloads."""
    settings = _options(config, None, data_dir).settings()
    from backend.offline_training import train_from_stores

    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting", total=None)
        training = train_from_stores(
            settings, store or (), out, seed=seed,
            on_progress=lambda text: bar.update(task, description=text),
        )  # fmt: skip
    for line in training.summary():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def rollback(
    to: Annotated[
        Optional[int], typer.Option("--to", help="Policy version; default: the one before.")
    ] = None,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Go back to an earlier policy version, whether or not the tuner is running.

    The short way of run.py policy rollback.
    """
    settings = _options(config, dsn, data_dir).settings()
    from backend.commands.policy_actions import roll_back

    console.print(roll_back(settings, to), markup=False)


@app.command()
def advise(
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, max=1440, help="How long to look at it.")
    ] = 5.0,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", help="Folder for advice.json and advice.html; default: the data."),
    ] = None,
    memory_gib: Annotated[
        Optional[float],
        typer.Option("--memory-gib", min=0.1, help="Memory of the server's machine, in GiB."),
    ] = None,
    cores: Annotated[
        Optional[float], typer.Option("--cores", min=0.1, help="Its cores, for this server.")
    ] = None,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Look at a server for a while and tell what might be changed; changes nothing.

    Findings with what was measured, knobs with text to copy, and the statements that take the time.

    Ctrl-C ends it early and tells what was seen until then.

    Example: run.py advise --minutes 10 --dsn postgresql://monitor@db.example/shop --memory-gib 64
    """
    settings = _options(config, dsn, data_dir).settings()
    from backend.advice.gathering import StatedMachine
    from backend.commands.advise import observe_and_advise

    observe_and_advise(
        settings, console, minutes=minutes, stated=StatedMachine(memory_gib, cores), out=out
    )


@app.command()
def freeze(
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the others; shown on every page.")
    ] = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Freeze the configuration: nothing is changed but by a rollback, until you unfreeze.

    Works whether or not the tuner runs, and outlives restarts. A running trial is undone.
    """
    from backend.commands.plan_actions import freeze as throw

    typer.echo(throw(_options(config, None, data_dir).settings(), True, reason))


@app.command()
def unfreeze(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Let the autopilot change the server again, as far as its mode goes."""
    from backend.commands.plan_actions import freeze as throw

    typer.echo(throw(_options(config, None, data_dir).settings(), False, ""))


@app.command()
def doctor(
    config: ConfigOption = None, dsn: DsnOption = None, data_dir: DataDirOption = None
) -> None:
    """Show what is connected, which privileges we have, and the SQL that grants the rest."""
    settings = _options(config, dsn, data_dir).settings()
    from backend.commands.doctor import examine

    examine(settings, console)


@app.command()
def grants(
    mode: Annotated[str, typer.Option("--mode", help="observe, advise, approve or auto.")] = "auto",
    role: Annotated[
        Optional[str], typer.Option("--role", help="Role of the autopilot; default: database.user.")
    ] = None,
    server_version: Annotated[
        Optional[int],
        typer.Option("--server-version", help="14 to 18; default: the server is asked."),
    ] = None,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Print the SQL that gives a role what a mode needs, and no more; changes nothing itself.

    Example: run.py grants --mode auto --role autopilot --server-version 17 | psql --dbname=shop
    """
    settings = _options(config, dsn, data_dir).settings()
    from backend.commands.grants import grant_script

    typer.echo(
        grant_script(settings, mode=mode, role=role, server_version=server_version), nl=False
    )


@app.command()
def password() -> None:
    """Ask for a password, unseen, and print the hash that stands for it in dashboard.users."""
    from dashboard.auth.accounts import hash_password

    chosen = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    typer.echo(hash_password(chosen))


def main() -> None:
    """Entry point: known errors become one clear message and exit code 1."""
    try:
        app()
    except AutopilotError as error:
        errors.print(f"Error: {error.message}", style="red", markup=False)
        if error.remedy:
            errors.print(f"Remedy: {error.remedy}", markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
