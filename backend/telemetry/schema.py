"""The store's tables. Column names are the record's field names (see ``backend.domain.records`` and
``backend.domain.steering``).

Times are UTC; mappings and tuples are JSON; vocabularies are stored by their value. A number that
is not finite is stored as NULL. Changing anything here needs a migration beside it
(``migrations/versions``); a test compares the two.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from backend.telemetry.codec import dump_json, load_json

SCHEMA_REVISION = "0004"
"""The newest migration: a store that carries it opens without looking further."""

POSTGRESQL_SCHEMA = "autopilot"
"""On PostgreSQL the tables live in a schema of their own, so that they meet no others."""


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware time: written as UTC, read back aware and in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Refuse naive times: nobody could tell which zone they meant."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the time {value.isoformat()} has no time zone")
        return value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """SQLite gives naive times back, which are UTC; PostgreSQL gives the session's zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc)


class JsonText(sa.types.TypeDecorator[Any]):
    """JSON in a text column: SQLite would turn a bare 1.0 in a JSON column into 1."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        """None is NULL."""
        return None if value is None else dump_json(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        """NULL is None."""
        return None if value is None else load_json(value)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Json = sa.JSON(none_as_null=True).with_variant(JsonText(), "sqlite")


def _id() -> sa.Column[int]:
    return sa.Column("id", _Id, primary_key=True, autoincrement=True)


def _text(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=options.pop("nullable", False), **options)


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=True)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _json(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, _Json, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, UtcDateTime, nullable=nullable)


def _reference(name: str, target: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, sa.ForeignKey(target, ondelete="CASCADE"), nullable=False)


windows = sa.Table(
    "windows",
    metadata,
    _id(),
    _time("started_at"),
    _time("ended_at"),
    _real("duration_s"),
    _text("phase"),
    _json("config"),
    _text("arm", nullable=True),
    # No foreign key: evidence is written even where its trial could not be.
    sa.Column("trial_id", sa.BigInteger, nullable=True),
    _real("index"),
    _real("coverage"),
    _real("quality"),
    _json("quality_reasons"),
    _real("calls_per_s"),
    _real("mean_ms"),
    _json("rates"),
    _json("gauges"),
    # Retention has looked at it: it stands for all windows of its bucket.
    sa.Column("downsampled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_windows_started_at", "started_at"),
    sa.Index("ix_windows_trial_id", "trial_id", "started_at"),
    sqlite_autoincrement=True,
)

window_queries = sa.Table(
    "window_queries",
    metadata,
    _reference("window_id", "windows.id"),
    _text("key"),
    _count("calls"),
    _real("mean_ms"),
    _count("rows"),
    _count("shared_blocks_hit"),
    _count("shared_blocks_read"),
    _count("temp_blocks_written"),
    sa.PrimaryKeyConstraint("window_id", "key"),
    sqlite_with_rowid=False,
)

query_classes = sa.Table(
    "query_classes",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    _text("text"),
    _time("first_seen_at"),
    sqlite_with_rowid=False,
)

client_intervals = sa.Table(
    "client_intervals",
    metadata,
    _id(),
    _time("started_at"),
    _time("ended_at"),
    _text("class_name"),
    _count("offered"),
    _count("completed"),
    _count("errors"),
    _count("timeouts"),
    _real("mean_ms"),
    _real("p50_ms"),
    _real("p95_ms"),
    _real("p99_ms"),
    _real("service_mean_ms"),
    sa.Column("downsampled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_client_intervals_class_name", "class_name", "started_at"),
    sa.Index("ix_client_intervals_started_at", "started_at"),
    sqlite_autoincrement=True,
)

trials = sa.Table(
    "trials",
    metadata,
    _id(),
    _text("kind"),
    _text("state"),
    _text("proposer"),
    _time("created_at"),
    _json("before"),
    _json("after"),
    _time("finished_at", nullable=True),
    _text("verdict", nullable=True),
    _json("reasons"),
    _real("effect"),
    _real("ci_low"),
    _real("ci_high"),
    _real("confidence"),
    _count("blocks"),
    _count("max_blocks"),
    _json("block_log_ratios"),
    _real("coverage"),
    _real("quality"),
    _flag("needs_restart"),
    _json("class_effects"),
    _real("progress"),
    sqlite_autoincrement=True,
)

changes = sa.Table(
    "changes",
    metadata,
    _id(),
    _text("batch_id"),
    _count("epoch"),
    _text("actor"),
    _text("knob"),
    _text("before_entry", nullable=True),
    _text("after_entry", nullable=True),
    _json("before_value", nullable=True),
    _json("after_value", nullable=True),
    _text("state"),
    _time("created_at"),
    sa.Column("trial_id", sa.BigInteger, nullable=True),
    _time("settled_at", nullable=True),
    _text("detail"),
    sa.Index("ix_changes_state", "state"),
    sqlite_autoincrement=True,
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("epoch", _Id, primary_key=True, autoincrement=False),
    _text("holder"),
    _time("expires_at"),
    _flag("released"),
)

policy_versions = sa.Table(
    "policy_versions",
    metadata,
    _id(),
    _time("created_at"),
    _text("author"),
    _json("config"),
    sa.Column("parent_id", sa.BigInteger, nullable=True),
    sa.Column("trial_id", sa.BigInteger, nullable=True),
    _real("index"),
    _text("note"),
    _flag("active"),
    # Digests of served_hints: the next version serves mostly the same.
    sa.Column("steering", _Json, nullable=False, server_default="[]"),
    sa.Column("weights", _Json, nullable=False, server_default="{}"),
    sqlite_autoincrement=True,
)
sa.Index(
    "uq_policy_versions_one_active",
    policy_versions.c.active,
    unique=True,
    sqlite_where=sa.text("active"),
    postgresql_where=sa.text("active"),
)

served_hints = sa.Table(
    "served_hints",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    _json("document"),
    sqlite_with_rowid=False,
)

policy_updates = sa.Table(
    "policy_updates",
    metadata,
    _id(),
    _time("at"),
    _text("policy"),
    _flag("deployed"),
    _text("reason"),
    _count("learnt_from"),
    _count("judged_on"),
    _real("gain"),
    _real("gain_low"),
    _real("gain_high"),
    _real("coverage"),
    _text("weights"),
    _text("replaced"),
    _real("duration_s"),
    sqlite_autoincrement=True,
)

genomes = sa.Table(
    "genomes",
    metadata,
    _id(),
    _time("at"),
    _text("study"),
    _count("generation"),
    _text("origin"),
    _json("genes"),
    _json("fitness"),
    _json("profile"),
    _json("comparison"),
    _flag("deployed"),
    _text("reason"),
    sa.Index("ix_genomes_study", "study", "id"),
    sqlite_autoincrement=True,
)

events = sa.Table(
    "events",
    metadata,
    _id(),
    _time("at"),
    _text("level"),
    _text("kind"),
    _text("message"),
    _json("detail"),
    sa.Index("ix_events_level", "level"),
    sa.Index("ix_events_at", "at"),
    sqlite_autoincrement=True,
)

commands = sa.Table(
    "commands",
    metadata,
    _id(),
    _text("kind"),
    _json("payload"),
    _text("actor"),
    _time("created_at"),
    _text("state"),
    _time("finished_at", nullable=True),
    _text("result"),
    sa.Index("ix_commands_state", "state"),
    sqlite_autoincrement=True,
)

learning = sa.Table(
    "learning",
    metadata,
    _id(),
    _time("at"),
    _text("agent"),
    _count("step"),
    _real("reward"),
    _real("critic_loss"),
    _real("actor_loss"),
    _real("noise"),
    _count("replay_size"),
    _real("quality"),
    _json("reward_terms"),
    sa.Index("ix_learning_agent", "agent", "id"),
    sqlite_autoincrement=True,
)

knob_spaces = sa.Table(
    "knob_spaces",
    metadata,
    sa.Column("fingerprint", sa.Text, primary_key=True),
    _text("shape"),
    _json("knobs"),
    sqlite_with_rowid=False,
)

transitions = sa.Table(
    "transitions",
    metadata,
    _id(),
    _time("at"),
    _text("run"),
    _text("workload"),
    # No foreign key: what was measured is written even where its space could not be.
    _text("knob_space"),
    _text("state_layout"),
    _json("state"),
    _json("config"),
    _real("objective"),
    _real("quality"),
    _flag("censored"),
    _json("reward_terms"),
    sa.Index("ix_transitions_workload", "workload", "id"),
    sqlite_autoincrement=True,
)

steered_classes = sa.Table(
    "steered_classes",
    metadata,
    _text("fingerprint"),
    _text("search_path"),
    _text("text"),
    _text("state"),
    _time("updated_at"),
    _text("mode"),
    _text("reason"),
    _json("evidence", nullable=True),
    _real("default_ms"),
    sa.Column("plans", sa.BigInteger, nullable=True),
    _count("probes"),
    _real("explored_s"),
    _json("query_keys"),
    sa.PrimaryKeyConstraint("fingerprint", "search_path"),
)

plan_runs = sa.Table(
    "plan_runs",
    metadata,
    _id(),
    _time("at"),
    _text("fingerprint"),
    _text("search_path"),
    _text("statement"),
    _text("hint_set"),
    _json("settings"),
    _text("plan_hash"),
    _text("purpose"),
    _text("outcome"),
    _real("latency_s"),
    _real("default_latency_s"),
    sa.Index("ix_plan_runs_fingerprint", "fingerprint", "id"),
    sqlite_autoincrement=True,
)

service_timings = sa.Table(
    "service_timings",
    metadata,
    _id(),
    _time("started_at"),
    _time("ended_at"),
    _text("fingerprint"),
    _text("search_path"),
    _text("hint_set"),
    _text("arm"),
    _count("executions"),
    _real("total_s"),
    _count("cancelled"),
    _count("failed"),
    _json("buckets"),
    sa.Column("downsampled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_service_timings_ended_at", "ended_at"),
    sqlite_autoincrement=True,
)

present = sa.Table(
    "present",
    metadata,
    # "status", "knobs", "workloads", "steering": what holds now, one JSON document each,
    # overwritten.
    sa.Column("name", sa.Text, primary_key=True),
    _time("at"),
    _json("document"),
)
