"""What one run was asked to do, handed from the supervisor to its processes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from backend.config import Settings, load_settings
from backend.demonstration import Act, acts_of
from backend.errors import ConfigError

ENVIRONMENT_KEY = "AUTOPILOT_RUN"
FAST_MODE_FACTOR = 100.0
"""Simulated seconds a real second in fast mode."""
SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True)
class RunOptions:
    """The command line of a run.

    Args:
        config_path: the settings file, None for config.yaml where it exists.
        overrides: settings given on the command line, nested by section. Never a secret: the
            address of a foreign server travels in DATABASE_URL.
        duration_days: simulated days, None for a run without an end.
        fast_mode: the workload's day passes 100 times as fast; windows stay real seconds.
        from_defaults: begin from the server's own configuration (demo).
        begun_at: when the run began (POSIX seconds); a tuner started again goes on by it.
        supervisor_pid: the process id of the supervisor, without which a process ends.
        heartbeat: where this process shows that it does not hang; None for nowhere.
    """

    config_path: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    duration_days: float | None = None
    fast_mode: bool = False
    from_defaults: bool = False
    begun_at: float | None = None
    supervisor_pid: int | None = None
    heartbeat: int | None = None

    @property
    def time_scale(self) -> float:
        """Simulated seconds per real second."""
        return FAST_MODE_FACTOR if self.fast_mode else 1.0

    @property
    def duration_s(self) -> float | None:
        """Real seconds of the run, None without an end."""
        if self.duration_days is None:
            return None
        return self.duration_days * SECONDS_PER_DAY / self.time_scale

    @property
    def acts(self) -> tuple[Act, ...]:
        """What happens to the demo's server in this run; nothing where it is no demonstration."""
        return acts_of(self.duration_days) if self.from_defaults else ()

    def past_s(self, now: datetime) -> float:
        """Real seconds since the run began; 0 where nobody has said when."""
        return 0.0 if self.begun_at is None else max(now.timestamp() - self.begun_at, 0.0)

    def settings(self) -> Settings:
        """The settings of this run.

        Raises:
            ConfigError: they are refused.
        """
        return load_settings(self.config_path, overrides=self.overrides)

    def to_environment(self) -> dict[str, str]:
        """The process's environment with these options in it."""
        return {**os.environ, ENVIRONMENT_KEY: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> RunOptions:
        """Read what :meth:`to_environment` wrote.

        Raises:
            ConfigError: the process was not started by the supervisor, or the text is not its.
        """
        text = environ.get(ENVIRONMENT_KEY)
        if text is None:
            raise ConfigError(
                f"{ENVIRONMENT_KEY} is not set",
                remedy="this command is for the supervisor; start run.py without it",
            )
        try:
            options = cls(**json.loads(text))
        except (ValueError, TypeError):
            options = None
        if options is None or not isinstance(options.overrides, Mapping):
            raise ConfigError(
                f"{ENVIRONMENT_KEY} does not hold the options of a run",
                remedy="this command is for the supervisor; start run.py without it",
            )
        return options
