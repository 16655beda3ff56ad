"""The settings of when something may happen."""

from __future__ import annotations

from pydantic import Field, field_validator

from backend.domain.hours import Hours
from backend.settings.section import Section


class ScheduleSection(Section):
    """Maintenance windows: outside them nothing is tried."""

    trials: tuple[str, ...] = Field(
        (),
        description="Hours in which trials may run, such as "
        '["Mon-Fri 01:00-05:00 Europe/Berlin"]; without a zone UTC. Empty: always.',
    )
    restarts: tuple[str, ...] = Field(
        (),
        description="Hours in which the server may be restarted for a knob, where it may be at "
        "all; written like the trials'. Empty: always.",
    )

    @field_validator("trials", "restarts")
    @classmethod
    def _can_be_read(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        Hours.parse(texts)
        return texts

    @property
    def trial_hours(self) -> Hours:
        """The hours of trials."""
        return Hours.parse(self.trials)

    @property
    def restart_hours(self) -> Hours:
        """The hours of restarts."""
        return Hours.parse(self.restarts)
