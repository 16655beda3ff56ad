"""Mode ``approve`` from its first plan to a freeze, with real trials, as the least role."""

from __future__ import annotations

import pytest

from backend.domain.experiment_plans import PlanState, PromotionState
from backend.domain.modes import Mode, TrialKind, Verdict
from tests.foreign_server import ForeignServer
from tests.integration.approve_mode.conftest import Approves

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


def test_nothing_happens_without_a_word_but_what_undoes(
    approving_on: Approves, server_15: ForeignServer
) -> None:
    at = approving_on(server_15)
    tuner = at.start()
    assert tuner._components.deployment.mode is Mode.APPROVE

    # Before a plan is approved nothing is written, whatever is promising.
    at.ready()
    at.promise()
    at.ticks()
    assert at.plan.state is PlanState.DRAFT
    assert at.plan.author == "autopilot"
    assert "jit" in at.plan.ranges
    assert at.store.trials() == []
    assert at.store.changes() == []
    assert at.entries == {}

    # What the plan holds is tried and proven; nothing is deployed.
    number = at.approve()
    at.turn(at.waits)
    (trial,) = at.store.trials()
    assert (trial.kind, trial.verdict) == (TrialKind.PROMOTION, Verdict.ACCEPT)
    assert trial.experiment_plan_id == number
    assert trial.effect is not None
    assert trial.effect < -0.5
    assert at.entries == {}
    shown = at.call("promotion", "show")
    assert f"Promotion of trial {trial.id}: waiting" in shown
    assert "jit" in shown
    assert at.store.windows(trial_id=trial.id)

    # Declined at the terminal it is never deployed; the next one is approved on the page.
    assert "is declined" in at.call("promotion", "decline")
    at.ticks()
    assert at.promotion.state is PromotionState.DECLINED
    assert at.entries == {}
    at.promise()
    at.turn(at.waits)
    at.press("approve", trial_id=at.promotion.trial_id)
    at.turn(lambda: at.promotion.state is PromotionState.DEPLOYED)
    assert at.entries == {"jit": "off"}
    assert "dashboard" in at.promotion.decided_by

    # It turns out worse: undone, and nobody is asked.
    commands = len(at.store.commands())
    at.clients.parameter = "off"
    at.turn(lambda: at.loop.trial is None and at.entries == {})
    assert len(at.store.commands()) == commands
    assert at.store.trials()[-1].kind is TrialKind.PROBATION

    # A freeze ends what runs, and nothing starts.
    at.clients.parameter = "on"
    at.promise()
    at.turn(lambda: at.entries == {"jit": "off"})
    assert "frozen" in at.call("freeze", "--reason", "the sale begins")
    assert at.entries == {}
    last = at.store.trials()[-1]
    assert last.verdict is Verdict.ABORTED
    assert "frozen by" in last.reasons[0]
    at.promise()
    at.ticks()
    assert at.store.trials()[-1].id == last.id
    assert at.entries == {}
    at.call("unfreeze")
    at.turn(lambda: at.loop.trial is not None)
    at.end()
    assert at.entries == {}
    assert not at.store.open_changes()
