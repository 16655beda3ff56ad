"""The settings of the dashboard: where it listens, and who may look at it and change things."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints, model_validator

from backend.settings.section import Section

UserName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
"""Lower case alone: names come from the environment, too, whose keys have no case."""


class Role(str, Enum):
    """What a user of the dashboard may do."""

    VIEWER = "viewer"
    """Read every page, and change nothing."""
    OPERATOR = "operator"
    """Queue commands as well."""


class UserSettings(Section):
    """One user of the dashboard: a role, and a password or a file that holds it.

    Either may be a hash as ``run.py password`` prints it, or the password itself, which is meant
    for the environment and for files that only this account may read.
    """

    role: Role = Field(Role.VIEWER, description="viewer or operator.")
    password: SecretStr | None = Field(None, description="Hash of the password, or the password.")
    password_file: Path | None = Field(None, description="File that holds one of both.")

    @model_validator(mode="after")
    def _has_one_password(self) -> UserSettings:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("give either password or password_file; run.py password makes a hash")
        return self


class DashboardSettings(Section):
    """The dashboard."""

    enabled: bool = Field(True, description="Serve the pages.")
    host: str = Field("127.0.0.1", description="Address to bind; loopback unless you know better.")
    port: int = Field(8050, ge=1, le=65535, description="TCP port of the pages.")
    refresh_interval_s: float = Field(2.0, ge=0.5, le=60, description="Seconds between refreshes.")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Further Host names that browsers may use, against DNS rebinding."
    )
    users: dict[UserName, UserSettings] = Field(
        default_factory=dict,
        description="Who may log in: a role (viewer, operator) and a password or password_file for "
        "each name, see docs/dashboard.md. Empty: no login, which only loopback may do without.",
    )
    trusted_proxy: str | None = Field(
        None,
        description="Address of a reverse proxy whose X-Forwarded-For and X-Forwarded-Proto are "
        "believed.",
    )
    session_idle_s: float = Field(
        3600,
        ge=60,
        le=86400,
        description="Seconds without a click or a page change after which a login ends.",
    )
    session_max_s: float = Field(
        43200, ge=300, le=2592000, description="Seconds after which a login ends in any case."
    )

    @model_validator(mode="after")
    def _proxy_is_one_address(self) -> DashboardSettings:
        if self.trusted_proxy == "*":
            raise ValueError(
                "trusted_proxy = * would believe anybody; name the proxy's address, such as "
                "127.0.0.1"
            )
        return self
