"""Level 1's knob policy on recorded workloads: does an update pass, and does it keep its promise?

    python -m benchmarks.policy_learning STORE

STORE is a telemetry store whose transitions are of several workloads, such as
``benchmarks.record_workloads`` writes. Two questions:

* *A workload never seen*: learnt on all others, what gain does the update promise there, does it
  pass, and what was measured of the configurations recorded nearest to the policy's own?
* *One workload after the other*: which updates are deployed, and what do those promise that are
  not?

Nothing is run and nothing is written. Copy the store first where a tuner of another version owns
it: reading a store migrates it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sqlalchemy.engine import URL

from backend.agent.action_grid import ActionGrid
from backend.config import load_settings
from backend.policy.recorded_trials import RecordedTrials
from backend.policy.updates import Actions, Candidate, Rule, learn_and_judge
from backend.state_features import OFFERED_COLUMNS
from backend.telemetry import open_store
from backend.training_data import Recorded, training_data

NEAREST = 3
"""Recorded configurations that speak for the policy's own."""


def part(data: RecordedTrials, episodes: Sequence[int]) -> RecordedTrials:
    """The rows of some episodes, numbered anew."""
    rows = np.isin(data.episodes, episodes)
    numbers = np.searchsorted(np.array(episodes), data.episodes[rows])
    names = ("states", "actions", "gains", "qualities", "censored")
    return replace(data, episodes=numbers, **{name: getattr(data, name)[rows] for name in names})


class Updates:
    """Updates as the settings' defaults would have them."""

    def __init__(self) -> None:
        level1 = load_settings(environ={}).level1
        self._alpha, self._rule = level1.alpha, Rule(level1.min_improvement)

    def update(self, data: RecordedTrials, incumbent: Actions | None) -> tuple[Candidate, str]:
        """A candidate, and what is against it."""
        found = learn_and_judge(data, incumbent, OFFERED_COLUMNS, alpha=self._alpha, seed=0)
        return found, self._rule.objection(found.estimate) or self._rule.objection(found.whole)


def held_out(data: RecordedTrials, updates: Updates) -> None:
    """Each workload in turn as the one that the policy never saw."""
    count, passed, near = int(data.episodes.max()) + 1, 0, []
    for left in range(count):
        found, objection = updates.update(
            part(data, [episode for episode in range(count) if episode != left]), None
        )
        own = data.episodes == left
        standing, state = data.first_actions()[own][:1], data.states[own][:1]
        wanted = found.policy.actions(state, standing)
        nearest = np.argsort(np.square(data.actions[own] - wanted).sum(axis=1))[:NEAREST]
        gain = float((data.gains[own][nearest] - data.gains[own][0]).mean())
        moved = int(ActionGrid(data.space).moved(wanted, standing)[0])
        passed, near = passed + (not objection), [*near, gain]
        print(
            f"workload {left}: {objection or 'passes'}; promised {found.estimate.interval}, "
            f"coverage {found.estimate.coverage:.0%}; moves {moved} knobs; measured nearby "
            f"{np.expm1(-gain):+.0%}; {'' if found.policy.familiar(state[0]) else 'not '}familiar"
        )
    print(
        f"{passed} of {count} updates pass; measured nearby {np.expm1(-np.mean(near)):+.1%} "
        f"on the geometric mean, better than what stood in {np.sum(np.array(near) > 0.0)}"
    )


def growing(data: RecordedTrials, updates: Updates) -> None:
    """An update after each workload, against the one that was deployed last."""
    incumbent: Actions | None = None
    for count in range(1, int(data.episodes.max()) + 2):
        some = part(data, range(count))
        found, objection = updates.update(some, incumbent)
        print(
            f"{count} workloads, {len(some)} transitions: {found.estimate.interval}, "
            f"coverage {found.estimate.coverage:.0%}: {objection or 'deployed'}"
        )
        if not objection:
            incumbent = found.policy.actions


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", help="an SQLite file")
    name = parser.parse_args().store
    store = open_store(URL.create("sqlite", database=name))
    try:
        data = RecordedTrials.of(training_data([Recorded.read(store, name)], 0.0))
    finally:
        store.close()
    updates = Updates()
    held_out(data, updates)
    growing(data, updates)


if __name__ == "__main__":
    main()
