"""Knob tuners on a real server, with equal wall clock: ``python -m benchmarks.knob_live``.

Each method gets the same minutes on the embedded PostgreSQL: the same data (a fresh copy), the
same offered load (open-loop arrivals, frozen by the seed; the same statements in every window, so
that windows differ by what the server does and not by what it was asked), the same knobs (those
that the product tunes), settings at PostgreSQL's defaults at first. One trial applies a
configuration, lets it settle and measures a window; its objective is the latency index against
windows of the defaults just before and after. The memory budget is kept for every method: a
proposal that passes it is shrunk, and counted. Only durable configurations: settings on the
never-list are no knobs here, and whether they stand is looked for on the server after each change.

When all methods of a workload and seed are done, their final configurations (each the best by its
own measurements; ours spends its last fifth on measuring its best again) and the defaults are
measured once more, interleaved, in randomised blocks.

What is finished is in the results file and is not done again; a method that was cut in the middle
is done from its start. Definitions and figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from backend.config import Settings
from backend.errors import AutopilotError, ConfigError
from benchmarks.harness.command_line import (
    TimeLimit,
    add_stop_after,
    end_in_good_order,
    positive,
)
from benchmarks.harness.server import Say, data_folder, settings_in
from benchmarks.live import methods
from benchmarks.live.course import Course, expected_trials
from benchmarks.live.records import Pace, Protocol, Results
from benchmarks.live.report import table
from benchmarks.live.server import LiveServer
from benchmarks.live.workloads import NAMES, LiveWorkload

DEFAULT_METHODS = "defaults,pgtune,tpe,smac3,ours-warm"
WINDOW_S, WARM_UP_S = 10.0, 15.0
"""Length of a window, and how long the load runs before the first, where nothing else is said."""
MIN_BLOCKS = 2
GIB = 1024**3

EPILOG = """examples:
  python -m benchmarks.knob_live --workload mixed --data-dir /var/tmp/live --results live.jsonl
      20 minutes for each of tpe, smac3 and ours-warm, seeds 0, 1 and 2: about 4 hours
      (fixed configurations cost nothing until the comparison). Stop it with Ctrl-C at any time;
      the same command goes on.
  python -m benchmarks.knob_live --workload oltp --seeds 0 --methods smac3,ours --results live.jsonl
  python -m benchmarks.knob_live --stop-after 60 --data-dir /var/tmp/live --results live.jsonl
      an hour of it; the same command, again and again, does the rest
  python -m benchmarks.knob_live --workload pgbench --data-dir /var/tmp/live --results live.jsonl
  python -m benchmarks.knob_live --report --results live.jsonl

methods: defaults  PostgreSQL as it comes       pgtune  PGTune's rules, as far as reloads go
         random    random search                tpe     Optuna's TPE
         smac3     SMAC3                        ddpg    plain DDPG with CDBTune's reward
         ours-warm the product's agent as it starts: with its expert rules and a trained checkpoint
         ours      the same, with nothing learnt

pgbench and pgbench-select: pgbench's own TPC-B-like and select-only scripts, run by the server's
own pgbench at a fixed rate; all others: the demo store's statements.

table:   gain         1 - latency index of the final configuration against the defaults, from the
                      blocks of the comparison (mean logarithm); Student's 95 % interval
         regret       sum over the trials of (index - the best final index of the cell)
         > 10 % worse trials with an index above 1.1; worst: the highest one's excess over 1
         over budget  configurations found on the server that pass the memory budget
         durability   settings of the never-list found changed
"""


def protocol_of(live: LiveServer, settings: Settings, arguments: argparse.Namespace) -> Protocol:
    """The rules that these options mean on this server."""
    workload = live.workload
    return Protocol(
        minutes=arguments.minutes,
        window_s=arguments.window,
        warm_up_s=arguments.warm_up,
        scale=workload.scale,
        rate_per_s=workload.rate_per_s,
        clients=workload.clients,
        statement_timeout_s=workload.statement_timeout_s,
        memory_limit_gb=settings.safety.memory_limit_gb,
        allow_restart=settings.level1.allow_restart,
        knobs=live.space.shape_fingerprint,
        cores=round(live.host.cpu_count),
        memory_gb=round(live.host.memory_bytes / GIB),
        server_version=live.info.version,
        repeat_s=workload.repeat_s,
    )


def settings_for(data_dir: Path, workload: LiveWorkload, allow_restart: bool) -> Settings:
    """The product's default settings with this data folder.

    Raises:
        ConfigError: the folder is one of the product's own, whose settings would be reset.
    """
    if (data_dir / "telemetry.db").exists():
        raise ConfigError(
            f"{data_dir} is the product's own: its server's settings would be reset",
            remedy="choose a folder for the benchmark alone: --data-dir",
        )
    sections = {
        "level1": {"allow_restart": allow_restart},
        "workload": {"max_concurrency": workload.clients},
    }
    return settings_in(data_dir, sections)


def run(arguments: argparse.Namespace, results: Results, say: Say) -> None:
    """Measure what the results file does not hold yet.

    Raises:
        AutopilotError: with the remedy.
    """
    names = methods.check_names(arguments.methods)
    workload = LiveWorkload.named(
        arguments.workload,
        scale=arguments.scale,
        rate_per_s=arguments.rate,
        clients=arguments.clients,
        statement_timeout_s=arguments.statement_timeout,
        repeat_s=arguments.window,
    )
    limit = TimeLimit(arguments.stop_after)
    with data_folder(arguments.data_dir, "knob-live-") as data_dir:
        settings = settings_for(data_dir, workload, arguments.allow_restart)
        live = LiveServer(settings, workload, say)
        with live.running():
            measure(live, settings, names, arguments, results, limit, say)


def measure(
    live: LiveServer,
    settings: Settings,
    names: Sequence[str],
    arguments: argparse.Namespace,
    results: Results,
    limit: TimeLimit,
    say: Say,
) -> None:
    """Measure on the running server, as far as the time allows.

    Raises:
        ConfigError: the results file holds measurements under other rules.
        CheckpointError: ours-warm has no checkpoint that fits.
    """
    protocol = protocol_of(live, settings, arguments)
    results.check_protocol(protocol, live.workload.name)
    problem = methods.Problem(
        space=live.space,
        host=live.host,
        budget=live.budget,
        settings=settings,
        trials=expected_trials(protocol),
        checkpoint=arguments.checkpoint,
    )
    if methods.OURS_WARM in names:
        methods.make(methods.OURS_WARM, 0, problem)  # a checkpoint that does not fit, told now
        digest = methods.agent_digest(methods.OURS_WARM, problem)
        results.check_agent(digest, live.workload.name)
    pace = Pace(arguments.compare_window, arguments.compare_settle)
    course = Course(live, protocol, results, problem, arguments.blocks, pace, limit, say)
    course.run(names, arguments.seeds)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.knob_live",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--workload", choices=NAMES, default="mixed", help="what the clients send (mixed)")
    add("--minutes", type=positive, default=20.0, help="wall clock of each method (20)")
    add_stop_after(parser, "method and no comparison")
    add("--methods", type=_names, default=_names(DEFAULT_METHODS), metavar="A,B,...",
        help=f"in this order ({DEFAULT_METHODS})")  # fmt: skip
    add("--seeds", type=_seeds, default=[0, 1, 2], metavar="0,1,...",
        help="each is a cell with arrivals of its own (0,1,2)")  # fmt: skip
    add("--data-dir", type=Path,
        help="kept and used again, with the loaded data; a folder for this benchmark alone. "
        "Default: a temporary one")  # fmt: skip
    add("--results", type=Path, required=True, metavar="FILE.jsonl",
        help="what is measured is appended here, what is here is not measured again")  # fmt: skip
    add(
        "--report", action="store_true", help="print the table of the results file, measure nothing"
    )
    add("--blocks", type=int, default=6, help="of the comparison; at least 6 for figures (6)")
    add("--compare-window", type=positive, metavar="S",
        help="length of the comparison's windows, where all statements are short and frequent: the "
        "shorter, the less the machine changes in between (as trials)")  # fmt: skip
    add("--compare-settle", type=positive, metavar="S",
        help="not measured after a switch in the comparison (as in trials)")  # fmt: skip
    add("--window", type=positive, default=WINDOW_S, metavar="S", help="length of a window (10 s)")
    add("--warm-up", type=positive, default=WARM_UP_S, metavar="S",
        help="the load runs for so long before each baseline (15 s)")  # fmt: skip
    add("--scale", type=positive, help="of the demo store (0.25) or of pgbench (20)")
    add("--rate", type=positive, metavar="PER_S",
        help="statements a second (the mix's own); pgbench: transactions (150, 1500)")  # fmt: skip
    add("--clients", type=int, default=8, help="connections (8)")
    add("--statement-timeout", type=positive, default=10.0, metavar="S",
        help="of the clients; a trial that meets it counts as a bound (10 s)")  # fmt: skip
    add("--allow-restart", action="store_true",
        help="tune the knobs that need a restart too, and restart for them")  # fmt: skip
    add("--checkpoint", type=Path, metavar="FILE",
        help="what ours-warm starts from (the one that comes with the product)")  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.blocks < MIN_BLOCKS:
        parser.error(f"--blocks {arguments.blocks}: at least {MIN_BLOCKS} give an interval")
    if arguments.clients < 1:
        parser.error(f"--clients {arguments.clients}: at least 1")
    return arguments


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seeds(text: str) -> list[int]:
    seeds = [int(part) for part in text.split(",")]
    if min(seeds) < 0:
        raise argparse.ArgumentTypeError("seeds are whole numbers from 0 on")
    return list(dict.fromkeys(seeds))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, or report; returns the exit code."""
    arguments = parse(argv)
    end_in_good_order()
    console = Console(width=170)
    began_s = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began_s:7.1f} s] {text}\n")
        sys.stderr.flush()

    try:
        results = Results(arguments.results)
        if not arguments.report:
            run(arguments, results, say)
        console.print(table(results))
    except AutopilotError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        say("ended; what is finished is kept, the same command goes on")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
