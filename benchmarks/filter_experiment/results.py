"""Every variant on every seed, with results in a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar


class SeededResult(Protocol):
    """What one run of one variant came to: a dataclass that fits into a line of JSON."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def seed(self) -> int:
        """Of everything that is drawn by lot."""

    @property
    def variant(self) -> str:
        """What was run."""


ResultT = TypeVar("ResultT", bound=SeededResult)


def run_all(
    run: Callable[[int, str], ResultT],
    of_line: Callable[..., ResultT],
    seeds: Sequence[int],
    variants: Sequence[str],
    out: Path | None,
    tell: Callable[[ResultT], None],
) -> list[ResultT]:
    """Every variant on every seed; results that ``out`` (JSON lines) holds are not made again."""
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
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
    return [r for r in results if r.seed in seeds and r.variant in variants]


def read_results(path: Path, of_line: Callable[..., ResultT]) -> list[ResultT]:
    """The results of an earlier, interrupted run."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [of_line(**json.loads(line)) for line in lines if line.strip()]
