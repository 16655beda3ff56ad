"""Is the sample filter worth it? ``python -m benchmarks.sample_filter COMMAND``.

``simulated``: the tuner on a simulated server under a swinging load, with the filter, without it,
and with plain DDPG. ``scripted``: the same with known candidates in the agent's place, so that
only the verdicts differ. ``spread``: how far two windows of one configuration lie apart, by the way
of comparing them. ``doubled-load``: promotions in which the load doubles. ``resampled``: A/A
promotions on noise resampled from recorded live windows. ``live``: A/A promotions on the embedded
server. Definitions and figures: docs/benchmarks.md.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from backend.config import Settings, load_settings
from backend.domain.modes import Verdict
from backend.errors import AutopilotError
from benchmarks.filter_experiment.intervals import Estimate, bootstrap_mean, rate_interval

if TYPE_CHECKING:
    from benchmarks.filter_experiment.live import LiveTrial

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help=(__doc__ or "").partition("\n")[0]
)
console = Console(width=118)
MAX_FALSE_RESAMPLED = 5 / 2000
"""Promise: false promotions among A/A trials on resampled noise, as a share."""
VERDICTS = (Verdict.ACCEPT, Verdict.REJECT, Verdict.INCONCLUSIVE)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


# -- the tuner under a swinging load ----------------------------------------------------------


@app.command()
def simulated(
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 10,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    hours: Annotated[float, typer.Option(help="Simulated hours a run may take.")] = 6.0,
    max_trials: Annotated[int, typer.Option(help="Trials a run may take.")] = 150,
    out: Annotated[Path | None, typer.Option(help="JSON lines; goes on where it ended.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants.")] = None,
) -> None:
    """Trials until 95 % of the reachable gain is deployed, with and without the filter."""
    from benchmarks.filter_experiment.results import counted_trials, run_all
    from benchmarks.filter_experiment.tuning import VARIANTS, RunResult, run_one

    def tell(result: RunResult) -> None:
        reached = result.trials_to_goal or f"not in {result.trials}"
        console.print(
            f"seed {result.seed}, {result.variant}: goal after {reached} trials, "
            f"{result.minutes:.0f} min; {result.final_share:.0%} of the gain; "
            f"{result.promotions} promotions, {result.wrong} wrong"
        )

    chosen = range(first_seed, first_seed + seeds)
    results = run_all(
        lambda seed, name: run_one(seed, name, hours, max_trials),
        RunResult, chosen, variant or VARIANTS, out, tell,
        {"hours": hours, "max_trials": max_trials},
    )  # fmt: skip
    by_variant = {
        name: {result.seed: result for result in results if result.variant == name}
        for name in variant or VARIANTS
    }
    table = _table(
        f"Swinging load, simulated: {seeds} seeds from {first_seed}, at most {max_trials} trials "
        f"and {hours:g} h (mean ± standard deviation over the seeds)",
        ("variant", "reached", "trials to 95 %", "minutes to 95 %", "share of gain at the end",
         "promotions", "wrong", "inconclusive"),
    )  # fmt: skip
    for name, runs in by_variant.items():
        found = list(runs.values())
        table.add_row(
            name,
            f"{sum(r.trials_to_goal is not None for r in found)} of {len(found)}",
            _spread([counted_trials(r) for r in found]),
            _spread([r.minutes for r in found]),
            _spread([r.final_share for r in found], "{:.3f}"),
            str(sum(r.promotions for r in found)),
            str(sum(r.wrong for r in found)),
            str(sum(r.inconclusive for r in found)),
        )
    console.print(table)
    first = by_variant.get("filter on", {})
    for name, runs in by_variant.items():
        both = sorted(first.keys() & runs.keys())
        if name == "filter on" or not both:
            continue
        trials = bootstrap_mean([
            counted_trials(first[s]) - counted_trials(runs[s])
            for s in both
        ])  # fmt: skip
        minutes = bootstrap_mean([
            first[s].minutes - runs[s].minutes
            for s in both
        ])  # fmt: skip
        share = bootstrap_mean([100 * (first[s].final_share - runs[s].final_share) for s in both])
        halved = median(counted_trials(first[s]) / counted_trials(runs[s]) for s in both)
        console.print(
            f"filter on - {name}, paired by seed, 95 % bootstrap interval: "
            f"trials {trials} {_clear(trials)}, minutes {minutes} {_clear(minutes)}, "
            f"points of the gain {share} {_clear(share)}; median ratio of trials {halved:.2f}"
        )
    console.print(
        "A run that never reached the goal counts with its trials and minutes: less than the truth."
    )


@app.command()
def scripted(
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 100,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 400,
    hours: Annotated[float, typer.Option(help="Simulated hours a run may take.")] = 12.0,
    max_trials: Annotated[int, typer.Option(help="Trials a run may take.")] = 150,
    out: Annotated[Path | None, typer.Option(help="JSON lines; goes on where it ended.")] = None,
) -> None:
    """The same candidates with and without the filter: what do wrong verdicts cost?"""
    from benchmarks.filter_experiment.results import counted_trials, run_all
    from benchmarks.filter_experiment.scripted import VARIANTS, ScriptedResult, run_one

    def tell(result: ScriptedResult) -> None:
        reached = result.trials_to_goal or f"not in {result.trials}"
        console.print(
            f"seed {result.seed}, {result.variant}: goal after {reached} trials, "
            f"{result.minutes:.0f} min; {result.promotions} promotions, {result.wrong} wrong"
        )

    results = run_all(
        lambda seed, name: run_one(seed, name, hours, max_trials),
        ScriptedResult, range(first_seed, first_seed + seeds), VARIANTS, out, tell,
        {"hours": hours, "max_trials": max_trials},
    )  # fmt: skip
    table = _table(
        f"Known candidates, swinging load: {seeds} seeds from {first_seed}, at most {max_trials} "
        f"trials and {hours:g} h (mean ± standard deviation over the seeds)",
        ("variant", "reached", "trials to 95 %", "minutes", "share of gain at the end",
         "promotions", "wrong", "windows", "void"),
    )  # fmt: skip
    tally = _table("Verdicts", ("trial, true effect", *VARIANTS))
    by_variant = {v: {r.seed: r for r in results if r.variant == v} for v in VARIANTS}
    for name, runs in by_variant.items():
        found = list(runs.values())
        table.add_row(
            name,
            f"{sum(r.trials_to_goal is not None for r in found)} of {len(found)}",
            _spread([counted_trials(r) for r in found]),
            _spread([r.minutes for r in found]),
            _spread([r.final_share for r in found], "{:.3f}"),
            *(str(sum(n)) for n in zip(
                *((r.promotions, r.wrong, r.windows, r.void) for r in found), strict=True
            )),
        )  # fmt: skip
    console.print(table)
    counts = {v: sum((Counter(r.verdicts) for r in by_variant[v].values()), Counter[str]())
              for v in VARIANTS}  # fmt: skip
    for row in sorted({key for counted in counts.values() for key in counted}):
        tally.add_row(row, *(str(counts[v][row]) for v in VARIANTS))
    console.print(tally)
    first = by_variant[VARIANTS[0]]
    for name in VARIANTS[1:]:
        runs = by_variant[name]
        pairs = [(first[s], runs[s]) for s in sorted(first.keys() & runs.keys())]
        trials = bootstrap_mean([
            counted_trials(a) - counted_trials(b)
            for a, b in pairs
        ])  # fmt: skip
        minutes = bootstrap_mean([a.minutes - b.minutes for a, b in pairs])
        console.print(
            f"filter on - {name}, paired by seed, 95 % bootstrap interval: "
            f"trials {trials} {_clear(trials)}, minutes {minutes} {_clear(minutes)}"
        )


def _spread(values: Sequence[float], form: str = "{:.0f}") -> str:
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{form.format(fmean(values))} ± {form.format(deviation)}"


def _clear(estimate: Estimate) -> str:
    return "(clear of 0)" if estimate.excludes_zero else "(not clear of 0)"


@app.command()
def spread(
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 10,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 350,
    hours: Annotated[float, typer.Option(help="Simulated hours of each.")] = 2.0,
) -> None:
    """How far two windows of one configuration lie apart, by the way of comparing them."""
    from benchmarks.filter_experiment.spread import spread_under_swings

    found = spread_under_swings(
        _settings(None), range(first_seed, first_seed + seeds), hours * 3600
    )
    table = _table(
        f"Windows of one configuration, swinging load: {seeds} seeds from {first_seed}, "
        f"{hours:g} h each",
        ("compared with", "comparisons", "spread of the log ratio", "beyond 5 %", "beyond 10 %"),
    )
    for errors in sorted(found.errors, key=lambda errors: -errors.deviation):
        table.add_row(
            errors.name,
            str(errors.log_ratios.size),
            f"{errors.deviation:.1%}",
            *(f"{errors.beyond(limit):.1%}" for limit in (0.05, 0.10)),
        )
    console.print(table)
    for cause, moved in found.moved.items():
        console.print(f"Load moved, {cause}: {moved} pairs, the filter keeps {found.kept[cause]}")


# -- the load doubles -------------------------------------------------------------------------


@app.command(name="doubled-load")
def doubled_load(
    seeds: Annotated[int, typer.Option(help="Seeds, from 0; three trials each.")] = 300,
    alpha: Annotated[float | None, typer.Option(help="Instead of level1.alpha.")] = None,
) -> None:
    """Verdicts of promotions in which the load doubles at a random moment, against the truth."""
    from benchmarks.filter_experiment.single_trials import Truth, verdicts_under_doubling

    settings = _settings(alpha)
    table = _table(
        f"The load doubles in mid-trial, simulated: {seeds} seeds, alpha {settings.level1.alpha:g}",
        ("filter, candidate", *(v.value for v in VERDICTS), "wrong"),
    )
    for filtered in (True, False):
        found = verdicts_under_doubling(settings, range(seeds), filtered)
        for truth in Truth.all():
            counts = found[truth.name]
            table.add_row(
                f"{'on' if filtered else 'off'}, {truth.name}",
                *(str(counts[verdict]) for verdict in VERDICTS),
                str(counts[truth.wrong]),
            )
    console.print(table)


def _settings(alpha: float | None, **level1: object) -> Settings:
    chosen = {**level1, **({} if alpha is None else {"alpha": alpha})}
    return load_settings(Path(os.devnull), overrides={"level1": chosen}, environ={})


# -- noise of recorded windows ----------------------------------------------------------------


@app.command()
def resampled(
    store: Annotated[list[Path], typer.Option(exists=True, help="Stores of earlier runs.")],
    trials: Annotated[int, typer.Option(help="A/A promotions.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    alpha: Annotated[float | None, typer.Option(help="Instead of level1.alpha.")] = None,
    off_too: Annotated[bool, typer.Option(help="The same with the filter off.")] = True,
) -> None:
    """A/A promotions on noise resampled from recorded windows: whatever is promoted is false."""
    from benchmarks.filter_experiment.replay import Resampled, recordings, resampled_trials

    sources = recordings(store)
    for source in sources:
        console.print(f"{source.source}: {len(source.windows)} windows, {source.seconds:.0f} s")
    table = _table(
        f"A/A promotions on resampled noise, seed {seed}",
        ("filter", "trials", "false promotions", "95 % interval, of the resampling alone",
         "rejected", "inconclusive", "spread of a block", "promise"),
    )  # fmt: skip

    def row(name: str, found: Resampled, promised: bool) -> None:
        low, high = rate_interval(found.false_promotions, found.trials)
        most = math.floor(MAX_FALSE_RESAMPLED * found.trials)
        kept = "kept" if found.false_promotions <= most else "BROKEN"
        table.add_row(
            name,
            str(found.trials),
            str(found.false_promotions),
            f"{low:.2%} to {high:.2%}",
            str(found.verdicts[Verdict.REJECT]),
            str(found.verdicts[Verdict.INCONCLUSIVE]),
            f"{found.spread:.1%}",
            f"at most {most}: {kept}" if promised else "",
        )

    row("on", resampled_trials(_settings(alpha), sources, trials, seed), promised=True)
    if off_too:
        without = _settings(alpha, sample_filter=False)
        row("off", resampled_trials(without, sources, trials, seed), promised=False)
    console.print(table)


# -- on the embedded server -------------------------------------------------------------------


@app.command()
def live(
    trials: Annotated[int, typer.Option(help="A/A promotions in all.")] = 30,
    out: Annotated[Path | None, typer.Option(help="JSON lines; goes on where it ended.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Kept; default: a fresh one.")] = None,
    scale: Annotated[float, typer.Option(help="Of the demo store.")] = 0.1,
    filter_on: Annotated[bool, typer.Option("--filter-on/--filter-off")] = True,
    min_blocks: Annotated[int | None, typer.Option(help="Instead of the settings'.")] = None,
    max_blocks: Annotated[int | None, typer.Option(help="Instead of the settings'.")] = None,
) -> None:
    """A/A promotions on the embedded server; the candidate differs in a cosmetic knob."""
    from benchmarks.filter_experiment.live import (
        LiveTrials,
        append_trial,
        live_settings,
        read_trials,
        server_at_work,
    )
    from benchmarks.harness.command_line import end_in_good_order
    from benchmarks.harness.server import data_folder
    from benchmarks.results_file import keep_options

    end_in_good_order()
    if out is not None:
        keep_options(out, {
            "scale": scale, "filter": filter_on, "min_blocks": min_blocks, "max_blocks": max_blocks,
        })  # fmt: skip
    found = read_trials(out)
    missing = [n for n in range(trials) if n not in {trial.number for trial in found}]

    def done(trial: LiveTrial) -> None:
        found.append(trial)
        append_trial(out, trial)
        console.print(
            f"trial {trial.number}: {trial.verdict} ({'; '.join(trial.reasons)}), "
            f"{trial.windows} windows, {trial.void} repeated, {trial.seconds:.0f} s"
        )

    with contextlib.ExitStack() as stack:
        if missing:
            folder = stack.enter_context(data_folder(data_dir, "filter-"))
            settings = live_settings(folder, scale, filter_on)
            load = stack.enter_context(server_at_work(settings, console.print))
            LiveTrials(settings, load, min_blocks, max_blocks).run(missing, done)
    _print_live(found)


def _print_live(done: Sequence[LiveTrial]) -> None:
    verdicts = Counter(trial.verdict for trial in done)
    ratios = [ratio for trial in done for ratio in trial.block_log_ratios]
    table = _table(
        "A/A promotions on the embedded server",
        ("trials", *(v.value for v in VERDICTS), "95 % interval of false promotions",
         "windows", "repeated", "spread of a block"),
    )  # fmt: skip
    false = sum(trial.is_false_promotion for trial in done)
    low, high = rate_interval(false, len(done)) if done else (0.0, 1.0)
    table.add_row(
        str(len(done)),
        *(str(verdicts[v.value]) for v in VERDICTS),
        f"{low:.1%} to {high:.1%}",
        str(sum(trial.windows for trial in done)),
        str(sum(trial.void for trial in done)),
        f"{stdev(ratios):.1%}" if len(ratios) > 1 else "-",
    )
    console.print(table)


def main() -> None:
    """Run a command; what cannot be done is told without a traceback."""
    try:
        app()
    except AutopilotError as error:
        console.print(str(error), markup=False)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
