"""What an approved experiment plan bounds on a real server, and the limits of a day."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backend.domain.experiment_plans import PlanState
from backend.domain.modes import TrialKind, Verdict
from backend.embedded_postgres import EmbeddedPostgres
from tests.integration.approve_mode.conftest import BETTER, QUICK, Approves

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

A_DAY = timedelta(days=1)


def test_trials_stay_inside_their_plan(
    approving_on: Approves, embedded_server: EmbeddedPostgres
) -> None:
    at = approving_on(embedded_server, safety={**QUICK["safety"], "max_trials_per_day": 1})
    at.start()
    at.ready()

    # Knobs and ranges: what the plan does not hold never gets to the server.
    at.approve(knobs={"random_page_cost": {"low": 1.5, "high": 2.0}})
    for values in (BETTER, {"random_page_cost": 1.1}):
        told = len(at.events("not_tried"))
        at.promise(values)
        at.turn(lambda told=told: len(at.events("not_tried")) > told)  # type: ignore[misc]
    assert "jit is not in experiment plan" in at.events("not_tried")[0]
    assert "random_page_cost = 1.1 is outside its range" in at.events("not_tried")[1]

    # Hours.
    at.proposals.update(BETTER)
    another_day = at.clock.now() + 3 * A_DAY
    at.approve(hours=[f"{another_day:%a} 01:00-02:00"])
    at.ticks()
    assert "outside the hours of experiment plan" in at.loop.hindrance
    assert at.store.changes() == []

    # The limit of a day, though the plan would let more run.
    at.approve()
    at.turn(lambda: bool(at.store.trials()) and at.loop.trial is None)
    at.ticks()
    assert at.loop.hindrance == "today's 1 trials are used up (safety.max_trials_per_day)"
    (probe,) = at.store.trials()
    assert (probe.kind, dict(probe.after)) == (TrialKind.PROBE, dict(BETTER))
    assert at.entries == {}

    # Expiry, and the trial that runs then.
    at.clock.ahead += 2 * A_DAY
    number = at.approve()
    at.turn(lambda: at.entries == {"jit": "off"})
    at.clock.ahead += A_DAY
    at.turn(lambda: at.plan.state is PlanState.DRAFT)  # the next one waits
    assert at.entries == {}
    expired = at.store.trials()[-1]
    assert (expired.verdict, expired.experiment_plan_id) == (Verdict.ABORTED, number)
    assert expired.reasons == (f"experiment plan {number} expired",)

    # Number.
    number = at.approve(trials=1)
    at.turn(lambda: at.plan.id != number)
    used_up = at.store.experiment_plans()[-2]
    assert (used_up.state, used_up.reason) == (PlanState.OVER, "its 1 trials are used up")
    at.ticks()
    assert len(at.store.trials()) == 3
    assert {change.knob for change in at.store.changes()} == {"jit"}
    assert at.entries == {}
