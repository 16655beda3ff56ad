"""Settings: config.yaml < environment < command line.

``load_settings`` is the one way in; settings.loading reads the sources. The descriptions below are
also the comments of config.yaml.example: ``python -m backend.config`` prints that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from sqlalchemy.engine import URL

from backend.domain.modes import Mode
from backend.errors import ConfigError
from backend.settings.address import check_parameters, parse_url
from backend.settings.dashboard import DashboardSettings
from backend.settings.level0 import Level0Section
from backend.settings.loading import explain, gather
from backend.settings.sandbox import SandboxSection
from backend.settings.schedule import ScheduleSection
from backend.settings.section import Section, example_of
from backend.settings.steering import SteeringSection
from backend.settings.workload import WorkloadSection


class DatabaseSettings(Section):
    """The server to tune. Without a host the bundled PostgreSQL is created and started."""

    host: str | None = Field(
        None, description="Host name or address; empty: the embedded PostgreSQL."
    )
    port: int = Field(5432, ge=1, le=65535, description="TCP port of a foreign server.")
    user: str = Field("autopilot", description="Role to connect as.")
    password: SecretStr | None = Field(
        None, description="Password; better kept in ~/.pgpass or in AUTOPILOT_DATABASE__PASSWORD."
    )
    dbname: str = Field("shop", description="Database whose statements are observed.")
    parameters: dict[str, str] = Field(
        default_factory=dict,
        description="More of libpq's connection parameters, such as sslmode and sslrootcert.",
    )
    max_connections: int = Field(
        3,
        ge=3,
        le=20,
        description="Sessions granted to the tuner; it holds 3 (settings, snapshots, lock), the "
        "watchdog one or two more.",
    )
    connection_timeout: float = Field(
        5, gt=0, le=60, description="Seconds to wait for a connection."
    )

    @field_validator("parameters")
    @classmethod
    def _parameters_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        try:
            check_parameters(value, "database.parameters")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value


class PathSettings(Section):
    """Where files lie. Relative paths count from the working directory."""

    data_dir: Path = Field(Path("data"), description="Root of everything written.")
    logs_dir: Path = Field(Path("data/logs"), description="optimizer.log and errors.log.")
    policies_dir: Path = Field(Path("data/policies"), description="Checkpoints of the agents.")
    steering_dir: Path = Field(
        Path("data/steering"),
        description="Steering table, timings and statements; applications may share this folder.",
    )
    telemetry_db: str = Field(
        "data/telemetry.db",
        repr=False,  # the URL may hold a password
        description="The store: a SQLite file, or the URL of a PostgreSQL database.",
    )

    @staticmethod
    def under(folder: Path) -> dict[str, str]:
        """The values of this section for a folder that shall hold everything."""
        return {
            "data_dir": str(folder),
            "logs_dir": str(folder / "logs"),
            "policies_dir": str(folder / "policies"),
            "steering_dir": str(folder / "steering"),
            "telemetry_db": str(folder / "telemetry.db"),
        }


class Level1Section(Section):
    """Level 1: the gate that every change passes, and its trials."""

    enabled: bool = Field(True, description="Tune at all; off: observe only.")
    update_interval: float = Field(
        3600,
        gt=0,
        description="Seconds (of the demo's clock) between two updates of the learned policies.",
    )
    recheck_interval: float = Field(
        86400,
        gt=0,
        description="Seconds (of the demo's clock) after which what stands is compared again with "
        "what it replaced, whatever is seen of it.",
    )
    min_improvement: float = Field(
        0.02, ge=0, lt=1, description="Smallest relative gain of the latency index worth deploying."
    )
    window_s: float = Field(
        10, ge=1, le=600, description="Length of one measuring window in real seconds."
    )
    settle_s: float = Field(
        2,
        ge=0,
        le=600,
        description="Real seconds after each switch that are not measured, at least.",
    )
    max_settle_s: float = Field(
        5,
        ge=2,
        le=3600,
        description="Knobs that take longer to show their effect (checkpoints) are not tried; the "
        "quickest take 2 s.",
    )
    baseline_s: float = Field(
        60, ge=10, le=3600, description="Real seconds observed before anything is tried."
    )
    rest_s: float = Field(
        300, ge=0, description="Real seconds between probes once nothing better is found."
    )
    alpha: float = Field(
        0.005, gt=0, lt=0.5, description="Chance of a false promotion that one trial may take."
    )
    daily_alpha: float = Field(
        0.2, gt=0, lt=1, description="Bound on the chance of any false promotion within a day."
    )
    min_blocks: int = Field(
        4, ge=3, le=50, description="Blocks (ABBA or BAAB) before the first look."
    )
    max_blocks: int = Field(
        8, ge=3, le=100, description="Blocks after which a promotion is inconclusive."
    )
    max_class_regression: float = Field(
        0.10, gt=0, le=1, description="No query class may be slower by more than this share."
    )
    min_coverage: float = Field(
        0.7, gt=0, le=1, description="Least share of the execution time that compared classes hold."
    )
    sample_filter: bool = Field(
        True,
        description="Judge windows by their sample quality; off only for experiments: every "
        "window then counts alike, whatever the load did.",
    )
    min_quality: float = Field(
        0.3, ge=0, le=1, description="Windows below this quality are repeated."
    )
    probation_blocks: int = Field(
        6, ge=0, le=50, description="Short returns to the former configuration after a deployment."
    )
    allow_restart: bool = Field(
        False, description="Try knobs that need a restart (the embedded server only)."
    )


class Level2Section(Section):
    """Level 2: the evolution of the hyper-parameters, by itself or with run.py evolve."""

    enabled: bool = Field(
        True,
        description="Evolve by itself, and use the genome that was evolved and deployed, if any. "
        "Costs processor time that nobody else wants, on the tuner's machine; no statements.",
    )
    evaluation_interval: float = Field(
        86400,
        gt=0,
        description="Seconds (of the demo's clock) from the beginning of an evolution to the next.",
    )
    evaluation_minutes: float = Field(
        20,
        gt=0,
        le=1440,
        description="Minutes that an evolution takes by itself, at most; never more than half of "
        "the interval.",
    )
    population_size: int = Field(8, ge=2, le=100, description="Genomes a generation.")
    mutation_rate: float = Field(
        0.1, ge=0, le=1, description="Chance that a gene mutates: it is drawn anew."
    )
    crossover_rate: float = Field(0.7, ge=0, le=1, description="Chance that two genomes cross.")
    tournament_size: int = Field(
        2, ge=2, le=2, description="Genomes that compete to be a parent: NSGA-II takes two."
    )
    elite_size: int = Field(
        1, ge=0, le=20, description="Not used: NSGA-II keeps the best of parents and children."
    )
    bounds: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="Narrower bounds of single genes; docs/meta-learning.md lists them.",
    )


class SafetySection(Section):
    """The safety monitor's limits. A limit that is passed blocks or undoes a candidate."""

    enabled: bool = Field(True, description="Judge every window; off only for experiments.")
    query_timeout: float = Field(
        30, gt=0, description="Seconds: a statement that runs longer under a candidate undoes it."
    )
    memory_limit_gb: float = Field(
        2, gt=0, description="GB that the memory knobs together may add up to (joint budget)."
    )
    memory_limit_percent: float = Field(
        92,
        gt=0,
        le=100,
        description="Use of the host's memory above which nothing is tried and a candidate undone.",
    )
    cpu_limit_percent: float = Field(
        98, gt=0, le=100, description="CPU use of the host above which nothing is tried."
    )
    connections_limit_percent: float = Field(
        90, gt=0, le=100, description="Share of max_connections above which nothing is tried."
    )
    max_error_rate: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of transactions that a candidate may roll back beyond what is usual.",
    )
    rollback_threshold: float = Field(
        0.15,
        gt=0,
        description="A candidate worse than the incumbent by more than this is undone at once.",
    )
    max_consecutive_failures: int = Field(
        3, ge=1, description="Failed trials or collections in a row after which tuning rests."
    )
    max_changes_per_day: int = Field(
        50, ge=1, description="Promotions of the autopilot a day (UTC), at the most."
    )
    max_trials_per_day: int = Field(
        500, ge=1, description="Probes and promotions that are begun a day (UTC), at the most."
    )
    sandbox_enabled: bool = Field(
        False, description="Try candidates in the sandbox before they are tried live."
    )


class TelemetrySection(Section):
    """What is recorded, and for how long."""

    collection_interval: float = Field(
        5, ge=1, le=3600, description="Real seconds between two snapshots."
    )
    retention_days: float = Field(
        30, gt=0, description="Days that windows, events and timings in service are kept."
    )
    aggregation_interval: float = Field(
        300, ge=1, description="Seconds to which windows older than a day are averaged."
    )


class LoggingSection(Section):
    """Log files."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level written to optimizer.log; errors.log holds errors only."
    )
    max_bytes: int = Field(5_000_000, ge=10_000, description="Size at which a log file is rotated.")
    backup_count: int = Field(3, ge=0, le=100, description="Rotated files that are kept.")


class Settings(Section):
    """All settings.

    Raises:
        ConfigError: through :func:`load_settings`, with the key, the value and the bound.
    """

    mode: Mode | None = Field(
        None,
        description="observe, advise, approve or auto. Empty: auto for the embedded server, "
        "observe for any other.",
    )
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    paths: PathSettings = Field(default_factory=PathSettings)
    level0: Level0Section = Field(default_factory=Level0Section)
    level1: Level1Section = Field(default_factory=Level1Section)
    level2: Level2Section = Field(default_factory=Level2Section)
    steering: SteeringSection = Field(default_factory=SteeringSection)
    safety: SafetySection = Field(default_factory=SafetySection)
    schedule: ScheduleSection = Field(default_factory=ScheduleSection)
    sandbox: SandboxSection = Field(default_factory=SandboxSection)
    workload: WorkloadSection = Field(default_factory=WorkloadSection)
    telemetry: TelemetrySection = Field(default_factory=TelemetrySection)
    dashboard: DashboardSettings = Field(default_factory=DashboardSettings)
    logging: LoggingSection = Field(default_factory=LoggingSection)

    @model_validator(mode="after")
    def _blocks_are_ordered(self) -> Settings:
        if self.level1.max_blocks < self.level1.min_blocks:
            raise ValueError(
                f"level1.max_blocks = {self.level1.max_blocks} is below "
                f"level1.min_blocks = {self.level1.min_blocks}"
            )
        return self

    @property
    def is_embedded(self) -> bool:
        """Whether the bundled server is used."""
        return self.database.host is None

    @property
    def effective_mode(self) -> Mode:
        """The mode to start in: a foreign server starts in observe unless told otherwise."""
        return self.mode or (Mode.AUTO if self.is_embedded else Mode.OBSERVE)

    @property
    def store_url(self) -> URL:
        """The store's URL; a plain path is a SQLite file.

        Raises:
            ConfigError: it cannot be parsed; :func:`load_settings` has made sure that it can.
        """
        text = self.paths.telemetry_db
        if "://" in text:
            return parse_url(text, "paths.telemetry_db")
        return URL.create("sqlite", database=str(Path(text)))

    def foreign_url(self) -> URL:
        """URL of the foreign server (driver psycopg2)."""
        password = self.database.password
        return URL.create(
            "postgresql+psycopg2",
            username=self.database.user,
            password=password.get_secret_value() if password else None,
            host=self.database.host,
            port=self.database.port,
            database=self.database.dbname,
            query=self.database.parameters,
        )


def load_settings(
    path: Path | str | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    dsn: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings; the arguments are those of :func:`backend.settings.loading.gather`.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or a value is refused.
    """
    merged = gather(Settings.model_fields, path, overrides=overrides, dsn=dsn, environ=environ)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error), remedy="see config.yaml.example") from None
    # Addresses that cannot be parsed are told now, not when they are used.
    _ = settings.store_url
    for key, address in (("steering", settings.steering.dsn), ("sandbox", settings.sandbox.dsn)):
        if address is not None:
            parse_url(address.get_secret_value(), f"{key}.dsn")
    return settings


def example_yaml() -> str:
    """The text of config.yaml.example: every key, its default and its meaning."""
    return example_of(Settings)


if __name__ == "__main__":
    print(example_yaml(), end="")
