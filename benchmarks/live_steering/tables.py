"""The tables of the live steering benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.live_steering.comparison import Blocks, class_ratios, total_of
from benchmarks.live_steering.pieces import Found
from benchmarks.live_steering.unseen import WORSE, score

OURS = "ours"


def print_comparison(
    title: str, blocks: Blocks, served: Mapping[str, Mapping[str, str]], console: Console
) -> None:
    """Print the totals of every configuration, and every class of ours.

    Args:
        title: what the tables are of.
        blocks: what was measured.
        served: configuration → class → hint set.
        console: where to.
    """
    totals = Table(title=title, title_justify="left")
    for column in ("served", "classes steered", "ms, all classes", "ratio to default (95 %)",
                   "of the reachable gain", "worst class (upper bound)"):  # fmt: skip
        totals.add_column(column, justify="left" if column == "served" else "right")
    for configuration, of_class in served.items():
        total = total_of(blocks, configuration)
        ratios = class_ratios(blocks, configuration, of_class)
        worst = max(ratios, key=lambda ratio: ratio.value)
        steered = sum(ratio.hint_set != "default" for ratio in ratios)
        totals.add_row(
            configuration,
            str(steered),
            f"{1000 * total.seconds:.1f}",
            f"{total.ratio.value:.3f} [{total.ratio.low:.3f}, {total.ratio.high:.3f}]",
            "" if total.reached is None else f"{total.reached:.0%}",
            f"{worst.name} {worst.value:.2f} ({worst.high:.2f})" if steered else "",
        )
    console.print(totals)
    if OURS in served:
        console.print(_classes(blocks, served))


def _classes(blocks: Blocks, served: Mapping[str, Mapping[str, str]]) -> Table:
    table = Table(
        title="ours by class: ratio to the default plan, bounds for all classes at once (95 %)",
        title_justify="left",
    )
    for column in ("class", "default ms", "ratio", "bounds", "optimum's"):
        table.add_column(column, justify="left" if column == "class" else "right")
    table.add_column("hint set, and the optimum's where it is another")
    optima = {r.name: r for r in class_ratios(blocks, "optimum", served["optimum"])}
    for ratio in class_ratios(blocks, OURS, served[OURS]):
        optimum = optima[ratio.name]
        both = (ratio.hint_set, optimum.hint_set)
        table.add_row(
            ratio.name,
            f"{1000 * ratio.default_s:.2f}",
            f"{ratio.value:.3f}",
            f"{ratio.low:.3f} … {ratio.high:.3f}",
            f"{optimum.value:.3f}",
            both[0] if both[0] == both[1] else f"{both[0]}; {both[1]}",
        )
    return table


def print_unseen(title: str, halves: Mapping[str, Found], console: Console) -> None:
    """Print how good first guesses were, for each half and in all."""
    table = Table(title=title, title_justify="left")
    for column in ("guessed for", "statements", "default ms", "first guess ms", "optimum ms",
                   "ratio", "of the reachable gain", f"over {WORSE}x", "moved"):  # fmt: skip
        table.add_column(column, justify="left" if column == "guessed for" else "right")
    every: list[Mapping[str, object]] = []
    rows: list[tuple[str, Sequence[Mapping[str, object]]]] = []
    for half, found in halves.items():
        every += found["guesses"]
        rows.append((f"half {half}", found["guesses"]))
    for name, guesses in [*rows, ("all", every)]:
        found_score = score(guesses)
        table.add_row(
            name,
            str(found_score.statements),
            f"{1000 * found_score.default_s:.1f}",
            f"{1000 * found_score.guess_s:.1f}",
            f"{1000 * found_score.optimum_s:.1f}",
            f"{found_score.guess_s / found_score.default_s:.3f}",
            "" if found_score.reached is None else f"{found_score.reached:.0%}",
            f"{found_score.worse:.1%}",
            f"{found_score.moved:.0%}",
        )
    console.print(table)
