"""``kill -9`` between an approval and its deployment: the old configuration stands, or the new."""

from __future__ import annotations

import multiprocessing
import signal

import pytest

from backend.domain.experiment_plans import PromotionState
from backend.embedded_postgres import EmbeddedPostgres
from tests.integration.approve_mode.conftest import Approves, Approving
from tests.integration.approve_mode.dying_tuner import deploy_and_die
from tests.integration.embedded_servers import query

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


def kill_at(at: Approving, moment: str) -> None:
    """Have a tuner of its own process killed at that moment."""
    process = multiprocessing.get_context("spawn").Process(
        target=deploy_and_die, args=(at.settings, moment)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_the_old_configuration_stands_or_the_new(
    approving_on: Approves, embedded_server: EmbeddedPostgres
) -> None:
    at = approving_on(embedded_server)
    at.start()
    at.ready()
    at.approve()
    at.promise()
    at.turn(at.waits)
    at.end()
    # Nobody is at work: the store is told, and the next tuner goes by it.
    assert "the next tuner goes by that" in at.call("promotion", "approve")

    kill_at(at, "before")
    assert at.entries == {}

    kill_at(at, "written")
    assert at.entries == {"jit": "off"}  # a mix, until the next tuner, or the watchdog, looks
    at.start()
    assert at.entries == {}
    assert at.store.open_changes() == []
    assert at.promotion.state is PromotionState.APPROVED
    at.end()

    kill_at(at, "kept")
    at.start()
    assert at.entries == {"jit": "off"}
    assert at.store.open_changes() == []
    assert query(embedded_server, "SHOW jit") == [("off",)]
    at.turn(lambda: at.promotion.state is not PromotionState.APPROVED)
    assert at.promotion.state is PromotionState.DEPLOYED
    active = next(v for v in at.store.policy_versions() if v.active)
    assert active.trial_id == at.promotion.trial_id
    assert at.promotion.reason == f"policy version {active.id}"
