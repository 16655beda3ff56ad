"""The settings of the sandbox; ``safety.sandbox_enabled`` switches it on."""

from __future__ import annotations

from pydantic import Field, SecretStr

from backend.settings.section import Section


class SandboxSection(Section):
    """Where candidates are tried before they are tried live: a copy, or a stand-by."""

    max_rows: int = Field(
        500_000, ge=1000, le=100_000_000, description="Rows of the copied sample, at the most."
    )
    max_bytes: int = Field(
        100_000_000,
        ge=1_000_000,
        le=100_000_000_000,
        description="Bytes of the copied sample, at the most; the disk must have four times as "
        "much free, and 512 MB.",
    )
    max_s: float = Field(
        300,
        ge=30,
        le=7200,
        description="Seconds that one check may take, with the making of the copy.",
    )
    dsn: SecretStr | None = Field(
        None,
        description="URL of a stand-by (a role that may only read) on which statements are run in "
        "place of a copy; only what a session may set is tried there.",
    )
