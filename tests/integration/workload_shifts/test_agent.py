"""The agent remembers what it learnt in a workload that comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from backend.domain.knobs import KnobValue
from backend.domain.modes import Arm, TrialKind, Verdict
from backend.domain.records import TrialRecord
from tests.integration.workload_shifts.shifting_run import SPACE, Shifting


def better_where_it_was_promoted(run: Shifting, offered: Mapping[int, str]) -> list[bool]:
    """Of each accepted promotion, whether it truly is better in the workload of that moment."""
    found, config = [], SPACE.default_config()
    for version in run.store.policy_versions():
        former, config = config, SPACE.default_config().replace(version.config)
        if version.trial_id is not None:
            by_day = offered[version.trial_id] == "day"
            index = run.model.index_by_day if by_day else run.model.index_by_night
            found.append(index(config) < index(former))
    return found


@pytest.mark.slow
def test_the_agent_answers_a_workload_that_comes_back_within_one_trial(tmp_path: Path) -> None:
    run = Shifting(tmp_path, scripted=False)
    offered: dict[int, str] = {}

    def live_through(workload: str, number: int, trials: int) -> list[TrialRecord]:
        """Offer it until so many trials that began in it are over; those trials.

        Rechecks of what the other workload's promotions left do not count.
        """
        run.clients.offer(workload)
        run.go(600, until=lambda: run.number() == number)
        begun = len(run.store.trials())

        def new() -> list[TrialRecord]:
            return [t for t in run.store.trials()[begun:] if t.kind is not TrialKind.RECHECK]

        run.go(3600, until=lambda: run.loop.trial is None and len(new()) >= trials)
        offered.update({trial.id: workload for trial in new() if trial.id is not None})
        return new()

    def best_by(workload: str, index: Callable[[Mapping[str, KnobValue]], float]) -> float:
        """The exact index of the best configuration that was promoted in a workload.

        Noise may make another one look better by a few percent.
        """
        return min(
            index(version.config)
            for version in run.store.policy_versions()
            if version.trial_id is not None and offered[version.trial_id] == workload
        )

    for trials in (live_through("day", 1, 14), live_through("night", 2, 14)):
        told = [trial for trial in trials if trial.verdict in (Verdict.ACCEPT, Verdict.REJECT)]
        assert len(told) >= 8
    by_day, by_night = run.model.index_by_day, run.model.index_by_night
    standing = dict(run.target.effective_config)
    assert by_day(standing) > 1.2 * best_by("day", by_day)  # the night's answer is not the day's

    (first,) = live_through("day", 1, 1)
    tried = next(w for w in run.store.windows(trial_id=first.id) if w.arm is Arm.CANDIDATE)
    assert by_day(tried.config) < 1.1 * best_by("day", by_day)
    live_through("day", 1, 2)  # its promotion and its probation
    standing = dict(run.target.effective_config)
    assert by_day(standing) < 1.1 * best_by("day", by_day)

    (first,) = live_through("night", 2, 1)
    assert by_night({**standing, **first.after}) < 1.1 * best_by("night", by_night)
    assert len(run.loop.workloads.known) == 2
    assert all(better_where_it_was_promoted(run, offered))
    run.orchestrator.end()
