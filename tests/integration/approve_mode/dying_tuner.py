"""A tuner that deploys what was approved, and is killed while it does: in its own process."""

from __future__ import annotations

import os
import signal
from typing import Any

from backend.config import Settings
from tests.integration.running_trials import begun, turn


def _dies(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def deploy_and_die(settings: Settings, moment: str) -> None:
    """Turn a tuner until it dies.

    Args:
        settings: of the tuner.
        moment: ``before`` anything is done; where the entry is ``written`` and not in force; where
            it is ``kept``, and the promotion still waits.
    """
    orchestrator = begun(settings)
    parts: Any = orchestrator._components
    deathly: dict[str, tuple[Any, str]] = {
        "before": (orchestrator.loop._rollout, "deploy_approved"),
        "written": (parts.target, "reload"),
        "kept": (parts.store, "save_promotion"),
    }
    place, name = deathly[moment]
    setattr(place, name, _dies)
    turn(orchestrator, lambda: False, 300)
