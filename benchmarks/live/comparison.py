"""The end of a cell: all final configurations and the defaults, interleaved and replicated.

Each block measures every distinct configuration once, in an order set by lot, on fresh data; it
yields one log ratio a configuration, against the defaults of the same block. The statements are
others than those of the trials: what a tuner found in their parameters alone is worth nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone

from backend.domain.knobs import KnobConfig, KnobValue
from backend.errors import AutopilotError, WorkloadError
from backend.sample_filter import outside_events
from benchmarks.harness.offers import LoadCounts
from benchmarks.harness.server import Say
from benchmarks.harness.windows import Measured
from benchmarks.live.outcomes import judge
from benchmarks.live.records import AS_TRIALS, Comparison, Pace, Part, Protocol
from benchmarks.live.server import LiveServer
from benchmarks.live.tuning import Stage, stage

DEFAULTS = KnobConfig({})
"""No knob changed."""
OTHER_STATEMENTS = 1000
"""Added to a cell's seed for the arrivals of its comparison."""
TAKEN_AGAIN = 2
"""So often at most a window is measured anew where another machine or maintenance spoilt it: told
by what happened on the host, not by what was measured, and alike for every method. On a disturbed
host a comparison may so take up to three times as long as was expected."""


def arrivals_of(seed: int) -> int:
    """The seed of the statements under which a cell's final configurations are compared."""
    return seed + OTHER_STATEMENTS


def compare(
    live: LiveServer,
    seed: int,
    parts: Mapping[str, Part],
    blocks: int,
    protocol: Protocol,
    say: Say,
    pace: Pace = AS_TRIALS,
) -> Comparison:
    """Measure the final configurations of these parts against the defaults.

    Raises:
        WorkloadError: the defaults themselves could not be measured.
    """
    finals = {method: KnobConfig(part.final) for method, part in parts.items()}
    arms = [DEFAULTS, *dict.fromkeys(c for c in finals.values() if c != DEFAULTS)]
    lot = random.Random(f"{live.workload.name} {seed}")
    found: list[Mapping[str, float | None]] = []
    with stage(live, arrivals_of(seed), protocol, pace) as running:
        failures = 0
        while len(found) < blocks:
            order = lot.sample(arms, len(arms))
            ratios = _block(running, order)
            if ratios is None:
                failures += 1
                if failures > blocks:
                    raise WorkloadError("the defaults could not be measured again and again")
                continue
            found.append({method: ratios[config] for method, config in finals.items()})
            say(
                f"block {len(found)} of {blocks}: "
                + ", ".join(f"{m} {math.exp(r):.3f}" for m, r in found[-1].items() if r is not None)
            )
    return Comparison(
        workload=live.workload.name,
        seed=seed,
        finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        protocol=protocol,
        finals={method: dict(part.final) for method, part in parts.items()},
        blocks=tuple(found),
        violations=list(live.violations),
        durability=list(live.durability),
        pace=pace,
        arrivals=arrivals_of(seed),
    )


def _block(running: Stage, order: Sequence[KnobConfig]) -> dict[KnobConfig, float] | None:
    """Each configuration's log ratio; None where the defaults could not be measured."""
    seen: list[tuple[KnobConfig, Measured | None, str]] = []
    for config in order:
        seen.append((config, *_measured(running, config)))
    windows = {config: window for config, window, _ in seen}
    reference = windows[DEFAULTS]
    if reference is None:
        return None
    ratios = {DEFAULTS: 0.0}
    for place, (config, window, crash) in enumerate(seen):
        if config == DEFAULTS:
            continue
        # What began under it has ended before the next window begins.
        later = (w.before for _, w, _ in seen[place + 1 :] if w is not None)
        until = next(later, running.counts())
        outcome = judge(window, [reference], running.shares, _timeouts(window, until), crash)
        ratios[config] = math.log(outcome.objective)
    return ratios


def _timeouts(window: Measured | None, until: LoadCounts) -> int:
    return 0 if window is None else until.timeouts - window.before.timeouts


def _measured(running: Stage, changes: Mapping[str, KnobValue]) -> tuple[Measured | None, str]:
    """A window of this configuration; taken again where something outside spoilt it."""
    try:
        found = first = running.measure(changes)
        for _ in range(TAKEN_AGAIN):
            if not outside_events(found.window):
                break
            found = running.measure(changes)
        return replace(found, before=first.before), ""
    except WorkloadError:
        raise
    except AutopilotError as error:
        running.live.recover()
        return None, error.message
