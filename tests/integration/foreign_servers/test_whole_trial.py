"""A whole trial on a server that was tuned by nobody, under the role that the script makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.domain.modes import ChangeState, TrialKind, Verdict
from tests.foreign_roles import drop_role, make_role
from tests.foreign_server import ForeignServer
from tests.integration.foreign_servers.conftest import SettingsOf
from tests.integration.running_trials import Clients, begun, turn
from tests.integration.tuned_servers import auto_conf
from tests.scripted_tuner import promise

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

SLOW_WITH_JIT = "SELECT sum(g * %s) FROM generate_series(1, 2000) AS g"
"""Compiled, it takes tens of milliseconds; otherwise less than one."""
EVERY_S = 0.1


@pytest.fixture
def clients(server_15: ForeignServer) -> Iterator[None]:
    """An application whose every statement is compiled."""
    server_15.run(
        *(
            f"ALTER SYSTEM SET {name} = 0"
            for name in ("jit_above_cost", "jit_inline_above_cost", "jit_optimize_above_cost")
        ),
        "SELECT pg_reload_conf()",
    )
    with Clients(server_15.dsn(), SLOW_WITH_JIT, 3, EVERY_S):
        yield
    server_15.run("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")


@pytest.mark.usefixtures("clients")
def test_what_is_proven_better_is_deployed(
    server_15: ForeignServer, settings_of: SettingsOf
) -> None:
    settings = settings_of(
        server_15,
        mode="auto",
        level1={"window_s": 1, "settle_s": 0.1, "baseline_s": 10, "rest_s": 0},
        safety={"cpu_limit_percent": 100, "memory_limit_percent": 100},
    )
    make_role(server_15, settings, "auto")
    before = auto_conf(server_15)
    orchestrator = begun(settings)
    parts = orchestrator._components
    try:
        loop, store = orchestrator.loop, parts.store
        turn(orchestrator, lambda: loop.workloads.ready, 60)
        promise(loop, {"jit": False})
        turn(orchestrator, lambda: "jit" in parts.deployment.deviating, 120)
        trial = next(t for t in store.trials(limit=100) if t.kind is TrialKind.PROMOTION)
        assert trial.verdict is Verdict.ACCEPT, trial.reasons
        assert trial.effect is not None
        assert trial.effect < -0.02
        assert server_15.run("SHOW jit") == [("off",)]
        assert auto_conf(server_15) == {**before, "jit": "off"}
        assert {change.state for change in store.changes()} >= {ChangeState.KEPT}
    finally:
        orchestrator.end()
    try:
        assert auto_conf(server_15) == {**before, "jit": "off"}, "no candidate is left behind"
    finally:
        drop_role(server_15)
