"""Better plans on a live server: ``python -m benchmarks.steering_live``.

On the embedded server with the demo store, for every class of statements that only reads: the
default plans; the measured optimum, of every different plan of every class; the best single hint
set for all; a greedy exploration and the product's own, both of the same time; at the end all of
them side by side on fresh statements. With --unseen also the plan agent's first guesses for classes
that it was not trained on. Definitions: docs/benchmarks.md.

Every piece is kept in --out and not measured again: the same command goes on where it ended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, track

from backend.config import Settings
from backend.errors import AutopilotError
from backend.servers import postgres_target
from benchmarks.harness.command_line import end_in_good_order, positive
from benchmarks.harness.server import data_folder, settings_in, shop_server
from benchmarks.live_steering import comparison, ours, search, unseen
from benchmarks.live_steering.bench import READS, Bench, bench_on
from benchmarks.live_steering.greedy import explore_greedily
from benchmarks.live_steering.pieces import STAGES, Cell, Pieces
from benchmarks.live_steering.search import ClassOptimum
from benchmarks.live_steering.tables import OURS, print_comparison, print_unseen

SINGLE, GREEDY = "best single hint set", "greedy"

Served = Mapping[str, Mapping[str, str]]
"""Configuration → class → name of the hint set."""


class Course:
    """The pieces of one scale, in their order.

    Args:
        arguments: see `parse`.
        scale: of the demo store.
        pieces: what was measured before.
        console: for progress.
        settings: of the server; its data folder is this scale's alone.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        scale: float,
        pieces: Pieces,
        console: Console,
        settings: Settings,
    ) -> None:
        self.arguments, self.scale, self.pieces = arguments, scale, pieces
        self._console, self._settings = console, settings
        self.names: Sequence[str] = arguments.classes
        self._rules = {"max_timeout_s": arguments.max_timeout}

    def _cell(self, stage: str, subject: str = "", **rules: Any) -> Cell:
        return Cell(stage, self.scale, self.arguments.seed, subject, {**self._rules, **rules})

    def optima(self, bench: Bench) -> dict[str, ClassOptimum]:
        """The measured optimum of every class."""
        found = {}
        for name in self._track(self.names, "every plan of every class"):
            piece = self.pieces.once(
                self._cell("search", name),
                lambda name=name: search.search_class(bench, name).as_json(),  # type: ignore[misc]
            )
            found[name] = ClassOptimum.of_json(piece)
        return found

    def served(self, bench: Bench, optima: Mapping[str, ClassOptimum]) -> Served:
        """What each configuration serves."""
        arguments, names = self.arguments, list(self.names)
        together: dict[str, Any] = {"classes": names}
        single = self.pieces.once(
            self._cell("single", **together), lambda: search.best_single(bench, optima)
        )
        spent = {"minutes": arguments.minutes, "share": arguments.share, **together}
        budget_s = 60.0 * arguments.minutes * arguments.share
        greedy = self.pieces.once(
            self._cell("greedy", **spent), lambda: self._explore_greedily(bench, budget_s)
        )
        explored = self.pieces.once(self._cell("ours", **spent), lambda: self._explore(bench))
        return {
            comparison.DEFAULT: dict.fromkeys(names, "default"),
            comparison.AGAIN: dict.fromkeys(names, "default"),
            SINGLE: dict.fromkeys(names, single["hint_set"]),
            GREEDY: greedy["served"],
            OURS: explored["served"],
            comparison.OPTIMUM: {name: optima[name].optimum for name in names},
        }

    def _explore_greedily(self, bench: Bench, budget_s: float) -> dict[str, Any]:
        with self._bar(GREEDY, budget_s) as advance:
            return explore_greedily(bench, self.names, budget_s, advance)

    def _explore(self, bench: Bench) -> dict[str, Any]:
        with (
            self._bar(OURS, self.arguments.minutes) as advance,
            closing(postgres_target(self._settings)) as target,
        ):
            return ours.explore(
                bench,
                self.names,
                self.arguments.minutes,
                self.arguments.share,
                self._settings,
                target.describe(),
                Path(self._settings.paths.data_dir) / "ours",
                advance,
            )

    def blocks(self, bench: Bench, served: Served) -> comparison.Blocks:
        """Everything that is served, side by side."""
        measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in self.names}
        others = [one for one in served if one not in (comparison.DEFAULT, comparison.AGAIN)]
        cells = [(block, name) for block in range(self.arguments.blocks) for name in self.names]
        for block, name in self._track(cells, "side by side"):
            here = {one: served[one][name] for one in others}
            found = self.pieces.once(
                self._cell("compare", f"{name} {block}", served=here),
                lambda: comparison.compare_block(bench, name, block, here),  # noqa: B023
            )
            measured[name].append(found["seconds"])
            for what in ("stopped", "other"):
                if found[what]:
                    said = "a time-out" if what == "stopped" else "another answer"
                    self._console.print(f"{name}, block {block}: {said}: {', '.join(found[what])}")
        return measured

    def halves(self, bench: Bench, optima: Mapping[str, ClassOptimum]) -> dict[str, Any]:
        """First guesses for one half of the classes after learning from the other."""
        found = {}
        for half in self._track(range(self.arguments.halves), "classes never seen"):
            found[str(half)] = self.pieces.once(
                self._cell("unseen", str(half), classes=list(self.names)),
                lambda: unseen.guess_half(bench, half, optima),  # noqa: B023
            )
        return found

    @contextmanager
    def _bar(self, what: str, total: float) -> Iterator[Callable[..., None]]:
        """A progress bar; called with what is done of the total, and with what goes on."""
        with Progress(console=self._console) as progress:
            task = progress.add_task(what, total=total)

            def advance(done: float, doing: str = what) -> None:
                progress.update(task, completed=min(done, total), description=doing[:60])

            yield advance

    def _track(self, sequence: Sequence[Any], what: str) -> Iterator[Any]:
        return iter(track(sequence, f"{what}, scale {self.scale:g}", console=self._console))


@contextmanager
def course_at(
    arguments: argparse.Namespace, scale: float, pieces: Pieces, folder: Path, console: Console
) -> Iterator[tuple[Course, Bench]]:
    """The running server of one scale."""
    sections = {"workload": {"data_scale_factor": scale}}
    settings = settings_in(folder / f"scale-{scale:g}", sections)
    Path(settings.paths.data_dir).mkdir(exist_ok=True)
    with shop_server(settings, console.print) as server:
        with closing(postgres_target(settings)) as target:
            info = target.describe()
        url = server.explorer_dsn()
        with bench_on(url, info, scale, arguments.seed, arguments.max_timeout) as bench:
            yield Course(arguments, scale, pieces, console, settings), bench


def run(arguments: argparse.Namespace, console: Console, tables: Console) -> None:
    """Measure what is missing, scale by scale, and print.

    Raises:
        AutopilotError: with the remedy.
    """
    pieces = Pieces(arguments.out, arguments.redo)
    with data_folder(arguments.data_dir, "steering-live-") as folder:
        for scale in arguments.scale:
            with course_at(arguments, scale, pieces, folder, console) as (course, bench):
                optima = course.optima(bench)
                served = course.served(bench, optima)
                blocks = course.blocks(bench, served)
                title = (
                    f"scale {scale:g}, {arguments.minutes:g} minutes at a share of "
                    f"{arguments.share:g}, {arguments.blocks} blocks"
                )
                print_comparison(title, blocks, served, tables)
                if arguments.unseen:
                    title = f"scale {scale:g}: first guesses for classes never seen"
                    print_unseen(title, course.halves(bench, optima), tables)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steering_live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--scale", type=_scales, default=(0.1,), metavar="S,S,...", help="of the store (0.1)")
    add("--minutes", type=positive, default=15.0, help="of exploration (15)")
    add("--share", type=_share, default=0.2, help="of these minutes for statements (0.2)")
    add("--blocks", type=int, default=8, help="of fresh statements, side by side (8)")
    add("--unseen", action="store_true", help="also the plan agent's first guesses")
    add("--halves", type=int, default=5, help="random halves of the classes for them (5)")
    add("--classes", type=_classes, default=READS, metavar="A,B,...", help="only these")
    add("--max-timeout", type=positive, default=30.0, metavar="S", help="of any statement (30 s)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, required=True, help="finished pieces as JSON lines; none is run again")
    add("--redo", type=_stages, default=(), metavar="STAGES",
        help=f"measure these again, of {', '.join(STAGES)}")  # fmt: skip
    add("--data-dir", type=Path, help="kept and used again; a folder for this benchmark alone. "
        "Default: a temporary one")  # fmt: skip
    arguments = parser.parse_args(argv)
    if min(arguments.blocks, arguments.halves) < 1:
        parser.error("--blocks and --halves: at least 1")
    return arguments


def _scales(text: str) -> tuple[float, ...]:
    return tuple(dict.fromkeys(positive(part) for part in text.split(",")))


def _share(text: str) -> float:
    share = float(text)
    if not 0.0 < share <= 1.0:
        raise argparse.ArgumentTypeError("a share lies in (0, 1]")
    return share


def _classes(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := [name for name in names if name not in READS]:
        raise argparse.ArgumentTypeError(f"unknown: {unknown}; choose from {', '.join(READS)}")
    return names


def _stages(text: str) -> tuple[str, ...]:
    stages = tuple(part.strip() for part in text.split(","))
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise argparse.ArgumentTypeError(f"unknown: {unknown}; choose from {', '.join(STAGES)}")
    return stages


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    arguments = parse(argv)
    end_in_good_order()
    console = Console(stderr=True)
    try:
        run(arguments, console, Console(width=150))
    except AutopilotError as error:
        console.print(str(error), markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("ended; what is finished is kept, the same command goes on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
