"""Mode ``approve`` on real servers: clients, a tuner, an operator at a terminal and on a page.

The statement's time hangs on whether ``jit`` is what the test says, so that what is better is known
however busy the machine is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import run
from backend.config import PathSettings, Settings
from backend.domain.clock import SystemClock
from backend.domain.experiment_plans import ExperimentPlanRecord, PromotionRecord, PromotionState
from backend.domain.knobs import KnobValue
from backend.domain.modes import CommandState
from backend.embedded_postgres import EmbeddedPostgres
from backend.orchestrator import SystemOrchestrator
from backend.telemetry import open_store
from dashboard import create_app
from tests.dashboard.clients import Browser, press, settings, tracked
from tests.foreign_roles import drop_role, make_role, settings_for
from tests.foreign_server import AnyServer, ForeignServer
from tests.integration.embedded_servers import query
from tests.integration.running_trials import Clients, begun, turn
from tests.integration.tuned_servers import auto_conf
from tests.scripted_tuner import promise

SLOW_UNDER = "SELECT pg_sleep(CASE WHEN current_setting('jit') = %s THEN 0.04 ELSE 0.004 END)"
EVERY_S = 0.06
SHORT: Mapping[str, float] = {"window_s": 0.5, "baseline_s": 4.0}
"""Shorter than the settings allow: here a few statements show what is better."""
BETTER: Mapping[str, KnobValue] = {"jit": False}
PLAN: Mapping[str, Any] = {"knobs": {"jit": {"choices": [True, False]}}, "trials": 9, "days": 1}
QUICK: Mapping[str, Any] = {
    "mode": "approve",
    "level1": {"settle_s": 0.1, "rest_s": 0, "probation_blocks": 3},
    "safety": {"cpu_limit_percent": 100, "memory_limit_percent": 100},
}


class SetClock(SystemClock):
    """The machine's time of day, as somebody sets it."""

    ahead = timedelta()

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return super().now() + self.ahead


class Approving:
    """A server with its clients, and tuners in mode ``approve`` that come and go.

    Args:
        server: the embedded one, or a foreign one with the role that the printed grants make.
        folder: of store, settings and plans.
        sections: settings that differ.
    """

    def __init__(self, server: AnyServer, folder: Path, **sections: Any) -> None:
        self.server, self.folder = server, folder
        paths = PathSettings.under(folder)
        if isinstance(server, EmbeddedPostgres):
            paths["data_dir"] = str(server.home.parent)
        wanted = {**QUICK, "paths": paths, **sections}
        chosen = (
            Settings.model_validate(wanted)
            if isinstance(server, EmbeddedPostgres)
            else settings_for(server, **wanted)
        )
        level1 = chosen.level1.model_copy(update=dict(SHORT))
        self.settings = chosen.model_copy(update={"level1": level1})
        self.config_path = folder / "config.yaml"
        self.config_path.write_text(yaml.safe_dump({"paths": paths}))
        self.clients = Clients(server.dsn(), SLOW_UNDER, "on", EVERY_S)
        self.clock = SetClock()
        self.proposals: dict[str, KnobValue] = {}
        self.before = auto_conf(server)
        self.store = open_store(self.settings.store_url)
        self.tuner: SystemOrchestrator | None = None

    def start(self) -> SystemOrchestrator:
        """The next tuner, as a process would begin it."""
        self.tuner = begun(self.settings, self.proposals, self.clock)
        self.loop = self.tuner.loop
        return self.tuner

    def end(self) -> None:
        """End the tuner in good order, where one is at work."""
        if self.tuner is not None:
            self.tuner.end()
            self.tuner = None

    # -- time ---------------------------------------------------------------------------------

    def turn(self, until: Callable[[], bool], most_s: float = 120.0) -> None:
        """Let the tuner work."""
        assert self.tuner is not None
        turn(self.tuner, until, most_s)

    def ready(self) -> None:
        """Until the workload is known."""
        self.turn(lambda: self.loop.workloads.ready)

    def ticks(self, number: int = 20) -> None:
        """Let the tuner work for a while in which nothing should happen."""
        left = iter(range(number))
        self.turn(lambda: next(left, None) is None)

    # -- what is there ------------------------------------------------------------------------

    @property
    def entries(self) -> dict[str, str]:
        """What somebody has added to postgresql.auto.conf since the beginning."""
        now = auto_conf(self.server)
        assert now.items() >= self.before.items()
        return {name: value for name, value in now.items() if name not in self.before}

    @property
    def plan(self) -> ExperimentPlanRecord:
        """The newest plan."""
        return self.store.experiment_plans()[-1]

    @property
    def promotion(self) -> PromotionRecord:
        """The newest promotion."""
        return self.store.promotions()[-1]

    def events(self, kind: str) -> list[str]:
        """The messages of the events of a kind, oldest first."""
        return [event.message for event in self.store.events(limit=1000) if event.kind == kind]

    def waits(self) -> bool:
        """Whether a promotion waits."""
        promotions = self.store.promotions()
        return bool(promotions) and promotions[-1].state is PromotionState.WAITING

    # -- the operator -------------------------------------------------------------------------

    def call(self, *arguments: str) -> str:
        """run.py, while the tuner works where there is one; what it printed."""
        done = []

        def invoke() -> None:
            words = [*arguments, "--config", str(self.config_path)]
            done.append(CliRunner().invoke(run.app, words))

        if self.tuner is None:
            invoke()
        else:
            thread = threading.Thread(target=invoke)
            thread.start()
            self.turn(lambda: not thread.is_alive())
        (result,) = done
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    def press(self, kind: str, **payload: object) -> None:
        """A button of a page, to the end."""
        browser = Browser(create_app(self.store, self.store, settings(refresh_interval_s=1e-6)))
        browser.get("/healthz")
        (queued,) = tracked(press(browser, kind, payload))

        def over() -> bool:
            command = self.store.command(queued["id"])
            assert command is not None
            assert command.state is not CommandState.REFUSED, command.result
            return command.state is CommandState.DONE

        self.turn(over)

    def approve(self, **changes: object) -> int:
        """Hand a plan in and approve it, both at the terminal; its id."""
        file = self.folder / "plan.yaml"
        file.write_text(yaml.safe_dump({**PLAN, **changes}))
        assert "waits for approval" in self.call("plan", "draft", str(file))
        assert "is approved" in self.call("plan", "approve")
        assert self.plan.id is not None
        return self.plan.id

    def promise(self, values: Mapping[str, KnobValue] = BETTER) -> None:
        """Let the tuner believe that this is worth a promotion."""
        promise(self.loop, values)


Approves = Callable[..., Approving]


@pytest.fixture
def approving_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Approves]:
    """Makes such a server, with the clients at work; the server is left as it was."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    made: list[Approving] = []

    def make(server: AnyServer, **sections: Any) -> Approving:
        found = Approving(server, tmp_path, **sections)
        made.append(found)
        if isinstance(server, ForeignServer):
            make_role(server, found.settings, "approve")
        found.clients.__enter__()
        return found

    yield make
    for found in made:
        found.end()
        found.clients.__exit__()
        found.store.close()
        left = found.entries
        for name in left:
            query(found.server, f"ALTER SYSTEM RESET {name}")
        query(found.server, "SELECT pg_reload_conf()")
        if isinstance(found.server, ForeignServer):
            drop_role(found.server)
