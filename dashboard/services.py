"""What every page and route works with: the cached reader, the queue, the settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from backend.domain.records import CommandRecord, StatusRecord
from backend.errors import AutopilotError, StoreError
from backend.protocols import CommandQueue, TelemetryReader
from dashboard.auth.identity import require_operator
from dashboard.baseline import BaselineMemory
from dashboard.cache import CachedReader
from dashboard.operator_commands import make_command
from dashboard.steering_numbers import ServiceMemory

if TYPE_CHECKING:
    from backend.settings.dashboard import DashboardSettings

SILENT_AFTER_S = 10.0


@dataclass(frozen=True)
class QualityFloors:
    """The sample qualities below which a window is not used; the defaults are the settings'.

    Args:
        training: below it a sample trains nothing (``level0.knob.quality_floor``).
        trial: below it a trial's window is void (``level1.min_quality``).
    """

    training: float = 0.2
    trial: float = 0.3


DEFAULT_FLOORS = QualityFloors()
DEFAULT_UPDATE_INTERVAL_S = 3600.0
"""``level1.update_interval`` where nothing is set."""


class Services:
    """The store behind the pages.

    Args:
        reader: the store's reader; asked at most once a tick.
        commands: the queue to the tuner.
        settings: host, port, refresh interval, allowed hosts.
        floors: of the sample quality.
        update_interval_s: real seconds between two updates of the policies; None: never.
    """

    def __init__(
        self,
        reader: TelemetryReader,
        commands: CommandQueue,
        settings: DashboardSettings,
        floors: QualityFloors = DEFAULT_FLOORS,
        update_interval_s: float | None = DEFAULT_UPDATE_INTERVAL_S,
    ) -> None:
        self.settings = settings
        self.update_interval_s = update_interval_s
        self.floors = floors
        # A page asks every 3/4 of the interval and an answer lives 1/8 of it, so that with the
        # way to the browser nothing on a page is older than the interval.
        self.tick_ms = max(250, round(settings.refresh_interval_s * 750))
        self.reader = CachedReader(reader, settings.refresh_interval_s / 8)
        self.memory = BaselineMemory(reader)
        self.service = ServiceMemory(reader)
        self._commands = commands

    def submit(self, command: CommandRecord) -> int:
        """Queue a checked command; returns its id.

        This is the one place through which pages and scripts change anything.

        Raises:
            RoleError: who asks is no operator.
            StoreError: it could not be written.
        """
        require_operator()
        try:
            command_id = self._commands.submit(command)
        except AutopilotError:
            raise
        except Exception as error:
            raise StoreError(f"the command could not be queued: {error}") from error
        self.reader.forget()
        return command_id

    def request(self, kind: object, payload: object) -> tuple[int | None, str]:
        """Check and queue what a page asks for: the id, or None and why it was refused."""
        try:
            actor = require_operator().at("dashboard")
            statuses = self.reader.knob_statuses()
            return self.submit(make_command(kind, payload, statuses, actor)), ""
        except AutopilotError as error:
            return None, str(error)

    def command(self, command_id: int) -> CommandRecord | None:
        """The command as it stands now.

        Raises:
            StoreError: the store could not be read.
        """
        try:
            return self._commands.command(command_id)
        except AutopilotError:
            raise
        except Exception as error:
            raise StoreError(f"command {command_id} could not be read: {error}") from error

    def tuner_is_silent(self, status: StatusRecord, now: datetime | None = None) -> bool:
        """Whether the tuner's heartbeat is older than it may be."""
        age_s = ((now or datetime.now(timezone.utc)) - status.at).total_seconds()
        return age_s > SILENT_AFTER_S
