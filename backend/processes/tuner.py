"""The tuner's process."""

from __future__ import annotations

import threading

from backend.config import Settings
from backend.orchestrator import SystemOrchestrator
from backend.run_options import RunOptions


def tuner(settings: Settings, options: RunOptions, stop: threading.Event) -> int:
    """Observe, propose, prove, keep or undo; returns the process's exit code."""
    orchestrator = SystemOrchestrator(settings, options=options)
    orchestrator.initialize_components()
    orchestrator.start(options.duration_days, options.fast_mode, stop=stop)
    return orchestrator.exit_code
