"""Every variant on every seed, with results in a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from benchmarks.results_file import append_line, keep_options, results_in


class SeededResult(Protocol):
    """What one run of one variant came to: a dataclass that fits into a line of JSON."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def seed(self) -> int:
        """Of everything that is drawn by lot."""

    @property
    def variant(self) -> str:
        """What was run."""

    @property
    def trials(self) -> int:
        """So many were made."""

    @property
    def trials_to_goal(self) -> int | None:
        """None where the goal was not reached."""


ResultT = TypeVar("ResultT", bound=SeededResult)


def run_all(
    run: Callable[[int, str], ResultT],
    of_line: Callable[..., ResultT],
    seeds: Sequence[int],
    variants: Sequence[str],
    out: Path | None,
    tell: Callable[[ResultT], None],
    options: Mapping[str, Any],
) -> list[ResultT]:
    """Every variant on every seed; results that ``out`` (JSON lines) holds are not made again.

    Raises:
        ConfigError: those results were made with other ``options``.
    """
    if out is not None:
        keep_options(out, options)
    results = read_results(out, of_line) if out is not None else []
    made = {(result.seed, result.variant) for result in results}
    for seed in seeds:
        for variant in variants:
            if (seed, variant) in made:
                continue
            result = run(seed, variant)
            results.append(result)
            tell(result)
            if out is not None:
                append_line(out, json.dumps(asdict(result)))
    return [r for r in results if r.seed in seeds and r.variant in variants]


def read_results(path: Path, of_line: Callable[..., ResultT]) -> list[ResultT]:
    """The results of an earlier, interrupted run."""
    return [of_line(**fields) for fields in results_in(path)]


def counted_trials(result: SeededResult) -> float:
    """Trials until the goal; where it was not reached all that were made, less than the truth."""
    return float(result.trials_to_goal or result.trials)
