"""The store's tables. Column names are the record's field names (see ``backend.domain.records`` and
``backend.domain.steering``).

Times are UTC; mappings and tuples are JSON; vocabularies are stored by their value. A number that
is not finite is stored as NULL. Changing anything here needs a migration beside it
(``migrations/versions``); a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa

from backend.telemetry.columns import (
    ID,
    JSON,
    count,
    flag,
    identity,
    json,
    real,
    reference,
    text,
    time,
)

SCHEMA_REVISION = "0006"
"""The newest migration: a store that carries it opens without looking further."""

POSTGRESQL_SCHEMA = "autopilot"
"""On PostgreSQL the tables live in a schema of their own, so that they meet no others."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

windows = sa.Table(
    "windows",
    metadata,
    identity(),
    time("started_at"),
    time("ended_at"),
    real("duration_s"),
    text("phase"),
    json("config"),
    text("arm", nullable=True),
    # No foreign key: evidence is written even where its trial could not be.
    sa.Column("trial_id", sa.BigInteger, nullable=True),
    real("index"),
    real("coverage"),
    real("quality"),
    json("quality_reasons"),
    real("calls_per_s"),
    real("mean_ms"),
    json("rates"),
    json("gauges"),
    # Retention has looked at it: it stands for all windows of its bucket.
    sa.Column("downsampled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_windows_started_at", "started_at"),
    sa.Index("ix_windows_trial_id", "trial_id", "started_at"),
    sqlite_autoincrement=True,
)

window_queries = sa.Table(
    "window_queries",
    metadata,
    reference("window_id", "windows.id"),
    text("key"),
    count("calls"),
    real("mean_ms"),
    count("rows"),
    count("shared_blocks_hit"),
    count("shared_blocks_read"),
    count("temp_blocks_written"),
    sa.PrimaryKeyConstraint("window_id", "key"),
    sqlite_with_rowid=False,
)

query_classes = sa.Table(
    "query_classes",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    text("text"),
    time("first_seen_at"),
    sqlite_with_rowid=False,
)

client_intervals = sa.Table(
    "client_intervals",
    metadata,
    identity(),
    time("started_at"),
    time("ended_at"),
    text("class_name"),
    count("offered"),
    count("completed"),
    count("errors"),
    count("timeouts"),
    real("mean_ms"),
    real("p50_ms"),
    real("p95_ms"),
    real("p99_ms"),
    real("service_mean_ms"),
    sa.Column("downsampled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_client_intervals_class_name", "class_name", "started_at"),
    sa.Index("ix_client_intervals_started_at", "started_at"),
    sqlite_autoincrement=True,
)

trials = sa.Table(
    "trials",
    metadata,
    identity(),
    text("kind"),
    text("state"),
    text("proposer"),
    time("created_at"),
    json("before"),
    json("after"),
    time("finished_at", nullable=True),
    text("verdict", nullable=True),
    json("reasons"),
    real("effect"),
    real("ci_low"),
    real("ci_high"),
    real("confidence"),
    count("blocks"),
    count("max_blocks"),
    json("block_log_ratios"),
    real("coverage"),
    real("quality"),
    flag("needs_restart"),
    json("class_effects"),
    real("progress"),
    sa.Column("experiment_plan_id", sa.BigInteger, nullable=True),
    sqlite_autoincrement=True,
)

experiment_plans = sa.Table(
    "experiment_plans",
    metadata,
    identity(),
    time("created_at"),
    text("author"),
    text("server_id"),
    json("knobs"),
    count("trials"),
    time("expires_at"),
    json("hours"),
    text("note"),
    text("state"),
    count("begun"),
    time("decided_at", nullable=True),
    text("decided_by"),
    text("reason"),
    sqlite_autoincrement=True,
)

promotions = sa.Table(
    "promotions",
    metadata,
    identity(),
    sa.Column("trial_id", sa.BigInteger, nullable=False),
    sa.Column("version_id", sa.BigInteger, nullable=False),
    count("workload"),
    time("created_at"),
    text("state"),
    time("decided_at", nullable=True),
    text("decided_by"),
    text("reason"),
    sqlite_autoincrement=True,
)

changes = sa.Table(
    "changes",
    metadata,
    identity(),
    text("batch_id"),
    count("epoch"),
    text("actor"),
    text("knob"),
    text("before_entry", nullable=True),
    text("after_entry", nullable=True),
    json("before_value", nullable=True),
    json("after_value", nullable=True),
    text("state"),
    time("created_at"),
    sa.Column("trial_id", sa.BigInteger, nullable=True),
    time("settled_at", nullable=True),
    text("detail"),
    sa.Column("timeline", sa.Text, nullable=False, server_default=""),
    sa.Column("place", sa.Text, nullable=False, server_default=""),
    sa.Index("ix_changes_state", "state"),
    sqlite_autoincrement=True,
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("epoch", ID, primary_key=True, autoincrement=False),
    text("holder"),
    time("expires_at"),
    flag("released"),
)

policy_versions = sa.Table(
    "policy_versions",
    metadata,
    identity(),
    time("created_at"),
    text("author"),
    json("config"),
    sa.Column("parent_id", sa.BigInteger, nullable=True),
    sa.Column("trial_id", sa.BigInteger, nullable=True),
    real("index"),
    text("note"),
    flag("active"),
    # Digests of served_hints: the next version serves mostly the same.
    sa.Column("steering", JSON, nullable=False, server_default="[]"),
    sa.Column("weights", JSON, nullable=False, server_default="{}"),
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
    json("document"),
    sqlite_with_rowid=False,
)

policy_updates = sa.Table(
    "policy_updates",
    metadata,
    identity(),
    time("at"),
    text("policy"),
    flag("deployed"),
    text("reason"),
    count("learnt_from"),
    count("judged_on"),
    real("gain"),
    real("gain_low"),
    real("gain_high"),
    real("coverage"),
    text("weights"),
    text("replaced"),
    real("duration_s"),
    sqlite_autoincrement=True,
)

genomes = sa.Table(
    "genomes",
    metadata,
    identity(),
    time("at"),
    text("study"),
    count("generation"),
    text("origin"),
    json("genes"),
    json("fitness"),
    json("profile"),
    json("comparison"),
    flag("deployed"),
    text("reason"),
    sa.Index("ix_genomes_study", "study", "id"),
    sqlite_autoincrement=True,
)

events = sa.Table(
    "events",
    metadata,
    identity(),
    time("at"),
    text("level"),
    text("kind"),
    text("message"),
    json("detail"),
    sa.Index("ix_events_level", "level"),
    sa.Index("ix_events_at", "at"),
    sqlite_autoincrement=True,
)

commands = sa.Table(
    "commands",
    metadata,
    identity(),
    text("kind"),
    json("payload"),
    text("actor"),
    time("created_at"),
    text("state"),
    time("finished_at", nullable=True),
    text("result"),
    sa.Index("ix_commands_state", "state"),
    sqlite_autoincrement=True,
)

learning = sa.Table(
    "learning",
    metadata,
    identity(),
    time("at"),
    text("agent"),
    count("step"),
    real("reward"),
    real("critic_loss"),
    real("actor_loss"),
    real("noise"),
    count("replay_size"),
    real("quality"),
    json("reward_terms"),
    sa.Index("ix_learning_agent", "agent", "id"),
    sqlite_autoincrement=True,
)

knob_spaces = sa.Table(
    "knob_spaces",
    metadata,
    sa.Column("fingerprint", sa.Text, primary_key=True),
    text("shape"),
    json("knobs"),
    sqlite_with_rowid=False,
)

transitions = sa.Table(
    "transitions",
    metadata,
    identity(),
    time("at"),
    text("run"),
    text("workload"),
    # No foreign key: what was measured is written even where its space could not be.
    text("knob_space"),
    text("state_layout"),
    json("state"),
    json("config"),
    real("objective"),
    real("quality"),
    flag("censored"),
    json("reward_terms"),
    sa.Index("ix_transitions_workload", "workload", "id"),
    sqlite_autoincrement=True,
)

steered_classes = sa.Table(
    "steered_classes",
    metadata,
    text("fingerprint"),
    text("search_path"),
    text("text"),
    text("state"),
    time("updated_at"),
    text("mode"),
    text("reason"),
    json("evidence", nullable=True),
    real("default_ms"),
    sa.Column("plans", sa.BigInteger, nullable=True),
    count("probes"),
    real("explored_s"),
    json("query_keys"),
    sa.PrimaryKeyConstraint("fingerprint", "search_path"),
)

plan_runs = sa.Table(
    "plan_runs",
    metadata,
    identity(),
    time("at"),
    text("fingerprint"),
    text("search_path"),
    text("statement"),
    text("hint_set"),
    json("settings"),
    text("plan_hash"),
    text("purpose"),
    text("outcome"),
    real("latency_s"),
    real("default_latency_s"),
    sa.Index("ix_plan_runs_fingerprint", "fingerprint", "id"),
    sqlite_autoincrement=True,
)

service_timings = sa.Table(
    "service_timings",
    metadata,
    identity(),
    time("started_at"),
    time("ended_at"),
    text("fingerprint"),
    text("search_path"),
    text("hint_set"),
    text("arm"),
    count("executions"),
    real("total_s"),
    count("cancelled"),
    count("failed"),
    json("buckets"),
    sa.Column("downsampled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_service_timings_ended_at", "ended_at"),
    sqlite_autoincrement=True,
)

present = sa.Table(
    "present",
    metadata,
    # "status", "knobs", "workloads", "steering", "freeze": what holds now, one JSON document each,
    # overwritten.
    sa.Column("name", sa.Text, primary_key=True),
    time("at"),
    json("document"),
)
