"""What each part of the knob agent buys: ``python -m benchmarks.knob_ablation``.

The surrogates of ``benchmarks.knob_surrogates``, played by the knob agent with one part of it
switched off at a time. docs/knob-agent.md explains the parts.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from backend.agent.settings import KnobAgentSettings
from backend.errors import ConfigError
from backend.evolution.genome import LIVE_KNOB
from benchmarks.surrogates.command import guarded, parser_of, run_benchmark

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    "one critic": {"ensemble_size": 1},
    "rewards not ranked": {"rank_rewards": False},
    "no actor": {"actor_share": 0.0},
    "the actor alone": {"candidates": 0},
    "no optimism": {"optimism": 0.0},
    "no design": {"design_size": 1},
    "no trust region": {"trust_start": 2.0, "trust_min": 1.99, "trust_max": 2.0},
    "nothing far": {"far_knobs": 0},
    "as on a live server": {
        name: getattr(LIVE_KNOB, name) for name in ("trust_start", "far_knobs", "moved_knobs")
    },
    "one update a tell": {"updates_per_tell": 1},
    "discount 0.9": {"gamma": 0.9},
}
"""By label, the settings that differ from the agent's own."""


def check_settings(ablations: Mapping[str, Mapping[str, Any]]) -> None:
    """Every switch must be one that the agent has, and must change something.

    Raises:
        ConfigError: it is not, or does not.
    """
    own = {f.name: f.default for f in dataclasses.fields(KnobAgentSettings)}
    for label, settings in ablations.items():
        for name, value in settings.items():
            if name not in own:
                raise ConfigError(f"{label}: the knob agent has no setting {name}")
            if own[name] == value and len(settings) == 1:
                raise ConfigError(f"{label}: {name} = {value} is the agent's own value")


def _labels(text: str) -> tuple[str, ...]:
    labels = tuple(part.strip() for part in text.split(","))
    if unknown := [label for label in labels if label not in ABLATIONS]:
        raise argparse.ArgumentTypeError(f"unknown: {unknown}; choose from {list(ABLATIONS)}")
    return labels


def main() -> None:
    """Run what is missing and print."""
    parser = parser_of("knob_ablation", (__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--methods", type=_labels, default=tuple(ABLATIONS), help=f"of {', '.join(ABLATIONS)}"
    )
    arguments = parser.parse_args()
    check_settings(ABLATIONS)
    run_benchmark(arguments, {label: ABLATIONS[label] for label in arguments.methods})


if __name__ == "__main__":
    guarded(main)
