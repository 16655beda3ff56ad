"""Tuners on random forests of recorded measurements: ``python -m benchmarks.knob_surrogates``.

A forest (300 trees) is fitted to each file and takes the database's place: tuners ask and tell
against it. Score 0 is the surrogate's value at the file's first row, which every tuner tries
first; score 1 is its best value over the recorded rows. Definitions: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backend.errors import ConfigError
from benchmarks.surrogates.command import guarded, parser_of, run_benchmark
from benchmarks.tuners import TUNERS

DEFAULT_METHODS = ("random", "tpe", "smac3", "ddpg", "ours")


def _methods(text: str) -> tuple[str, ...]:
    methods = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := [method for method in methods if method not in TUNERS]:
        raise argparse.ArgumentTypeError(f"unknown: {unknown}; choose from {', '.join(TUNERS)}")
    return methods


def main() -> None:
    """Run what is missing and print."""
    parser = parser_of("knob_surrogates", (__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--methods",
        type=_methods,
        default=DEFAULT_METHODS,
        help=f"of {', '.join(TUNERS)} ({','.join(DEFAULT_METHODS)})",
    )
    parser.add_argument("--checkpoint", type=Path, help="what ours-warm starts from")
    arguments = parser.parse_args()
    if "ours-warm" in arguments.methods and arguments.checkpoint is None:
        raise ConfigError("ours-warm needs --checkpoint")
    methods = {method: {} for method in arguments.methods}
    run_benchmark(arguments, methods, arguments.checkpoint)


if __name__ == "__main__":
    guarded(main)
