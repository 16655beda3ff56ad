"""Settings: config.yaml < environment < command line.

``load_settings`` is the one way in. Environment variables are named
``AUTOPILOT_<SECTION>__<KEY>`` (``AUTOPILOT_SAFETY__QUERY_TIMEOUT=10``). The descriptions below
are also the comments of config.yaml.example: ``python -m backend.config`` prints that file.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from backend.domain.modes import Mode
from backend.errors import ConfigError

ENV_PREFIX = "AUTOPILOT_"


Width = Annotated[int, Field(ge=1, le=4096)]
"""Units of a hidden layer."""


def _is_section(info: FieldInfo | None) -> bool:
    annotation = info.annotation if info is not None else None
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are checked and frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_sections_are_defaults(cls, values: Any) -> Any:
        """A section whose keys are all commented out reads as None: that is "all defaults"."""
        if not isinstance(values, dict):
            return values
        return {
            key: value
            for key, value in values.items()
            if value is not None or not _is_section(cls.model_fields.get(key))
        }


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
    max_connections: int = Field(
        3, ge=2, le=20, description="Connections that the tuner itself may hold."
    )
    connection_timeout: float = Field(
        5, gt=0, le=60, description="Seconds to wait for a connection."
    )


class PathSettings(Section):
    """Where files lie. Relative paths count from the working directory."""

    data_dir: Path = Field(Path("data"), description="Root of everything written.")
    logs_dir: Path = Field(Path("data/logs"), description="optimizer.log and errors.log.")
    policies_dir: Path = Field(Path("data/policies"), description="Checkpoints of the agents.")
    telemetry_db: str = Field(
        "data/telemetry.db",
        repr=False,  # the URL may hold a password
        description="The store: a SQLite file, or the URL of a PostgreSQL database.",
    )


class KnobAgentSection(Section):
    """The knob agent (DDPG)."""

    learning_rate: float = Field(
        0.0003, gt=0, le=1, description="Adam's step of actor and critics."
    )
    gamma: float = Field(
        0.05, ge=0, lt=1, description="Discount; near 0, since tuning is close to a bandit."
    )
    batch_size: int = Field(64, ge=1, le=4096, description="Transitions a gradient step.")
    buffer_size: int = Field(10000, ge=16, le=1_000_000, description="Transitions in the replay.")
    target_update: float = Field(
        0.01, gt=0, le=1, description="Share by which the target networks follow a step (tau)."
    )
    exploration_start: float = Field(
        0.4, gt=0, le=2, description="First standard deviation of the noise, in encoded units."
    )
    exploration_end: float = Field(
        0.05, gt=0, le=2, description="Last standard deviation of the noise."
    )
    exploration_samples: int = Field(
        100, ge=1, description="Measurements over which it falls from the first to the last."
    )
    hidden_layers: tuple[Width, ...] = Field(
        (64, 64), min_length=1, description="Widths of the hidden layers."
    )
    quality_floor: float = Field(
        0.2, ge=0, le=1, description="A sample below this quality is kept but trains nothing."
    )
    weight_resources: float = Field(
        0.05, ge=0, le=1, description="Weight of resource use (CPU, memory, I/O) in the reward."
    )
    weight_errors: float = Field(
        1.0, ge=0, le=10, description="Weight of the error rate in the reward."
    )


class PlanAgentSection(Section):
    """The plan agent (DQN). Read by the query steering, which is not active yet."""

    learning_rate: float = Field(0.0003, gt=0, le=1, description="Adam's step.")
    gamma: float = Field(0.9, ge=0, lt=1, description="Discount over the steps of one plan search.")
    batch_size: int = Field(64, ge=1, le=4096, description="Transitions a gradient step.")
    buffer_size: int = Field(10000, ge=16, le=1_000_000, description="Transitions in the replay.")
    target_update: int = Field(100, ge=1, description="Gradient steps between target updates.")
    exploration_start: float = Field(1.0, ge=0, le=1, description="First share of random actions.")
    exploration_end: float = Field(0.05, ge=0, le=1, description="Last share of random actions.")
    exploration_decay: float = Field(
        0.99, gt=0, le=1, description="Factor an episode by which it shrinks."
    )
    hidden_layers: tuple[Width, ...] = Field(
        (128, 64), min_length=1, description="Widths of the hidden layers."
    )


class Level0Section(Section):
    """Level 0: the two agents."""

    knob: KnobAgentSection = Field(default_factory=KnobAgentSection, description="The knob agent.")
    plan: PlanAgentSection = Field(default_factory=PlanAgentSection, description="The plan agent.")


class Level1Section(Section):
    """Level 1: the gate that every change passes, and its trials."""

    enabled: bool = Field(True, description="Tune at all; off: observe only.")
    update_interval: float = Field(
        3600,
        gt=0,
        description="Seconds (of the demo's clock) between policy updates; not active yet.",
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
        ge=0,
        le=3600,
        description="Knobs that take longer to show their effect (checkpoints) are not tried.",
    )
    baseline_s: float = Field(
        60, ge=10, le=3600, description="Real seconds observed before anything is tried."
    )
    rest_s: float = Field(
        300, ge=0, description="Real seconds between probes once nothing better is found."
    )
    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="Chance of a false promotion that one trial may take."
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
    """Level 2: the evolution of the hyper-parameters. Not active yet."""

    enabled: bool = Field(False, description="Evolve the learners' hyper-parameters.")
    evaluation_interval: float = Field(86400, gt=0, description="Seconds between generations.")
    population_size: int = Field(5, ge=2, le=100, description="Genomes a generation.")
    mutation_rate: float = Field(0.2, ge=0, le=1, description="Chance that a gene mutates.")
    crossover_rate: float = Field(0.7, ge=0, le=1, description="Chance that two genomes cross.")
    tournament_size: int = Field(2, ge=2, le=20, description="Genomes that compete to be a parent.")
    elite_size: int = Field(1, ge=0, le=20, description="Best genomes that survive unchanged.")
    bounds: dict[str, tuple[float, float]] = Field(
        default_factory=lambda: {"learning_rate": (1e-5, 1e-2), "gamma": (0.0, 0.99)},
        description="Lowest and highest value of each gene.",
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
        92, gt=0, le=100, description="Use of the host's memory above which nothing is tried."
    )
    cpu_limit_percent: float = Field(
        98, gt=0, le=100, description="CPU use of the host above which a candidate is not tried."
    )
    connections_limit_percent: float = Field(
        90, gt=0, le=100, description="Share of max_connections above which nothing is tried."
    )
    max_error_rate: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of failed or rolled back statements that undoes a candidate.",
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
        50, ge=1, description="Promotions of the autopilot a day, at the most."
    )
    sandbox_enabled: bool = Field(
        False, description="Try candidates in a scratch server first; not active yet."
    )


class WorkloadSection(Section):
    """The demo's workload."""

    name: Literal["mixed", "oltp", "analytical", "simple"] = Field(
        "mixed",
        description="Mix of statements: mixed, oltp, analytical or simple (nothing to gain).",
    )
    queries_per_hour: int | None = Field(
        None,
        ge=1,
        description="Statements a simulated hour at the day's peak; empty: the mix's own.",
    )
    data_scale_factor: float = Field(
        0.25, gt=0, le=10, description="Size of the demo store; 1.0 is about 10 million rows."
    )
    query_distribution: dict[str, float] = Field(
        default_factory=dict,
        description="Weights of statement classes that replace those of the mix, by class name.",
    )
    parameter_ranges: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="Bounds of statement parameters, by parameter name."
    )
    seed: int = Field(0, ge=0, description="Seed of the data, the arrivals and the parameters.")
    max_concurrency: int = Field(8, ge=1, le=200, description="Connections of the generator.")
    statement_timeout: float = Field(
        30, gt=0, description="Seconds after which the generator's own statements are cancelled."
    )


class TelemetrySection(Section):
    """What is recorded, and for how long."""

    collection_interval: float = Field(
        5, ge=1, le=3600, description="Real seconds between two snapshots."
    )
    retention_days: float = Field(30, gt=0, description="Days that windows and events are kept.")
    aggregation_interval: float = Field(
        300, ge=1, description="Seconds to which windows older than a day are averaged."
    )


class DashboardSettings(Section):
    """The dashboard."""

    enabled: bool = Field(True, description="Serve the pages.")
    host: str = Field("127.0.0.1", description="Address to bind; loopback unless you know better.")
    port: int = Field(8050, ge=1, le=65535, description="TCP port of the pages.")
    refresh_interval_s: float = Field(2.0, ge=0.5, le=60, description="Seconds between refreshes.")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Further Host names that browsers may use, against DNS rebinding."
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
    safety: SafetySection = Field(default_factory=SafetySection)
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
            return _parse_url(text, "paths.telemetry_db")
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
        )


def load_settings(
    path: Path | str | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    dsn: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings.

    Args:
        path: a YAML file; None: ``config.yaml`` of the working directory where it exists.
        overrides: the command line's, nested by section; they win.
        dsn: URL of a foreign server; wins over ``DATABASE_URL``.
        environ: the environment (for tests); default: the process's own.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or a value is refused.
    """
    env = os.environ if environ is None else environ
    merged = _merge(_read_yaml(path), _read_environment(env))
    url = dsn or env.get("DATABASE_URL")
    if url:
        merged = _merge(merged, {"database": _parse_dsn(url)})
    merged = _merge(merged, overrides or {})
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error), remedy="see config.yaml.example") from None
    _ = settings.store_url  # an address that cannot be parsed is told now, not when it is used
    return settings


def _read_yaml(path: Path | str | None) -> dict[str, Any]:
    file = Path(path) if path is not None else Path("config.yaml")
    if path is None and not file.exists():
        return {}
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no settings file at {file}", remedy="copy config.yaml.example to config.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        # Only what and where: the text of the line may hold a password.
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        known = isinstance(error, (ScannerError, ParserError))
        problem = error.problem if known else "an unknown tag or alias; quote the value"
        raise ConfigError(f"{file}{where}: not YAML ({problem})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read as YAML ({type(error).__name__})") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{file} holds a {type(loaded).__name__}, not sections of settings")
    return loaded


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(ENV_PREFIX):
            continue
        keys = name[len(ENV_PREFIX) :].lower().split("__")
        if keys[0] not in Settings.model_fields:
            continue
        place = nested
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{name} names a key inside {key}, which is set as a whole too")
        place[keys[-1]] = _parse_scalar(text)
    return nested


def _parse_scalar(text: str) -> Any:
    """Lists and mappings are given as JSON; pydantic turns plain text into numbers itself."""
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return None if text == "" else text


def _parse_url(text: str, name: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        # The text may hold a password, so it is not repeated.
        raise ConfigError(
            f"{name} cannot be parsed as a URL",
            remedy="write it as postgresql://user@host:5432/dbname",
        ) from None


def _parse_dsn(dsn: str) -> dict[str, Any]:
    url = _parse_url(dsn, "the database URL")
    if url.query:
        # Dropped silently, sslmode=require would become a connection without encryption.
        raise ConfigError(
            f"the database URL has options ({', '.join(sorted(url.query))}), which are not read",
            remedy="leave them out and set libpq's environment variables (PGSSLMODE, ...) instead",
        )
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(f"database kind {url.get_backend_name()!r} is not supported")
    parsed = {
        "host": url.host or "localhost",
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
    }
    return {key: value for key, value in parsed.items() if value not in (None, "")}


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "settings"
        lines.append(f"{where}: {item['msg']}{_given(where, item['type'], item['input'])}")
    return "invalid settings:\n  " + "\n  ".join(lines)


def _given(where: str, error_type: str, value: object) -> str:
    """The refused value for a message, where it cannot be a secret."""
    if not isinstance(value, (str, int, float)):
        return f" (got a {type(value).__name__})" if value is not None else " (got nothing)"
    # A misspelt password, or an address that holds one, must not be repeated.
    secret = "password" in where or error_type == "extra_forbidden" or "@" in str(value)
    return "" if secret else f" (got {reprlib.repr(value)})"


def example_yaml() -> str:
    """The text of config.yaml.example: every key, its default and its meaning."""
    lines = [
        "# Settings of the autopilot. Every key is shown with its default; delete what you do not",
        "# change. Order of precedence: this file < environment (AUTOPILOT_<SECTION>__<KEY>) <",
        "# command line. Times are in seconds unless the key says otherwise.",
        "",
    ]
    _describe(Settings, lines, indent="")
    return "\n".join(lines).rstrip() + "\n"


def _describe(model: type[BaseModel], lines: list[str], indent: str) -> None:
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):  # a section
            if not indent:
                lines.append("")
            doc = (annotation.__doc__ or "").strip().splitlines()[0]
            lines.append(f"{indent}# {doc}")
            lines.append(f"{indent}{name}:")
            _describe(annotation, lines, indent + "  ")
            continue
        lines.append(f"{indent}# {info.description}")
        lines.append(f"{indent}{name}: {_yaml_scalar(info.get_default(call_default_factory=True))}")


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, dict):
        value = {key: list(item) for key, item in value.items()}
    if isinstance(value, tuple):
        value = list(value)
    return "" if value is None else json.dumps(value)


if __name__ == "__main__":
    print(example_yaml(), end="")
