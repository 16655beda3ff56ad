"""The settings of query steering."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from backend.settings.section import Section


class SteeringSection(Section):
    """Better plans for single queries: their search, and the steering table."""

    explore: bool | None = Field(
        None,
        description="Try plans of statements that only read. Empty: on the embedded server, but in "
        "mode observe.",
    )
    share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Share of the time in which statements are tried; the tuner's trials rest "
        "meanwhile.",
    )
    cpu_limit_percent: float = Field(
        85, gt=0, le=100, description="CPU use of the host above which no statement is tried."
    )
    max_timeout_s: float = Field(
        30, gt=0, le=3600, description="Seconds that a statement may run on trial, at the most."
    )
    min_gain: float = Field(
        0.1, gt=0, lt=1, description="Smallest relative gain of a class that is worth steering it."
    )
    alpha: float = Field(
        0.005, gt=0, lt=0.5, description="Chance of a false proof that one verification may take."
    )
    default_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of a steered class's executions that keeps running the default plan, in "
        "the demo's clients; an application sets its own.",
    )
    statements: tuple[Path, ...] = Field(
        (), description="Files of SQL, or folders of them, whose statements are explored."
    )
    logs: tuple[Path, ...] = Field(
        (), description="Server logs (stderr, csvlog or jsonlog) that hold statements to explore."
    )
    search_path: str = Field(
        '"$user", public',
        max_length=1000,
        description="The search_path that statements in files and logs were written for, as SHOW "
        "search_path prints it.",
    )
    dsn: SecretStr | None = Field(
        None,
        description="URL under which statements are tried: a role that may only read, best on a "
        "stand-by. Empty: the embedded server's own explorer role, or the tuner's connection.",
    )
