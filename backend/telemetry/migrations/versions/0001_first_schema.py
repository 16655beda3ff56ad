"""The first schema.

It spells out what it creates, and shares nothing with ``schema.py``: that one moves on. There is
no way down: a SQLite file is copied before each migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(sa.Text(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "changes",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("knob", sa.Text(), nullable=False),
        sa.Column("before_entry", sa.Text(), nullable=True),
        sa.Column("after_entry", sa.Text(), nullable=True),
        sa.Column("before_value", _JSON, nullable=True),
        sa.Column("after_value", _JSON, nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("trial_id", sa.BigInteger(), nullable=True),
        sa.Column("settled_at", _TIME, nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_state", "changes", ["state"], unique=False)
    op.create_table(
        "client_intervals",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=False),
        sa.Column("class_name", sa.Text(), nullable=False),
        sa.Column("offered", sa.BigInteger(), nullable=False),
        sa.Column("completed", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("timeouts", sa.BigInteger(), nullable=False),
        sa.Column("mean_ms", sa.Double(), nullable=True),
        sa.Column("p50_ms", sa.Double(), nullable=True),
        sa.Column("p95_ms", sa.Double(), nullable=True),
        sa.Column("p99_ms", sa.Double(), nullable=True),
        sa.Column("service_mean_ms", sa.Double(), nullable=True),
        sa.Column("downsampled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client_intervals")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_client_intervals_class_name",
        "client_intervals",
        ["class_name", "started_at"],
        unique=False,
    )
    op.create_index(
        "ix_client_intervals_started_at", "client_intervals", ["started_at"], unique=False
    )
    op.create_table(
        "commands",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", _JSON, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commands")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_commands_state", "commands", ["state"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("detail", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_at", "events", ["at"], unique=False)
    op.create_index("ix_events_level", "events", ["level"], unique=False)
    op.create_table(
        "learning",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("reward", sa.Double(), nullable=True),
        sa.Column("critic_loss", sa.Double(), nullable=True),
        sa.Column("actor_loss", sa.Double(), nullable=True),
        sa.Column("noise", sa.Double(), nullable=True),
        sa.Column("replay_size", sa.BigInteger(), nullable=False),
        sa.Column("quality", sa.Double(), nullable=True),
        sa.Column("reward_terms", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_learning")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_learning_agent", "learning", ["agent", "id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("epoch", _ID, autoincrement=False, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("released", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name=op.f("pk_leases")),
    )
    op.create_table(
        "policy_versions",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("config", _JSON, nullable=False),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("trial_id", sa.BigInteger(), nullable=True),
        sa.Column("index", sa.Double(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_versions")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_policy_versions_one_active",
        "policy_versions",
        ["active"],
        unique=True,
        sqlite_where=sa.text("active"),
        postgresql_where=sa.text("active"),
    )
    op.create_table(
        "present",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("document", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_present")),
    )
    op.create_table(
        "query_classes",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("first_seen_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_query_classes")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "trials",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("proposer", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("before", _JSON, nullable=False),
        sa.Column("after", _JSON, nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("reasons", _JSON, nullable=False),
        sa.Column("effect", sa.Double(), nullable=True),
        sa.Column("ci_low", sa.Double(), nullable=True),
        sa.Column("ci_high", sa.Double(), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("blocks", sa.BigInteger(), nullable=False),
        sa.Column("max_blocks", sa.BigInteger(), nullable=False),
        sa.Column("block_log_ratios", _JSON, nullable=False),
        sa.Column("coverage", sa.Double(), nullable=True),
        sa.Column("quality", sa.Double(), nullable=True),
        sa.Column("needs_restart", sa.Boolean(), nullable=False),
        sa.Column("class_effects", _JSON, nullable=False),
        sa.Column("progress", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "windows",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=True),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("config", _JSON, nullable=False),
        sa.Column("arm", sa.Text(), nullable=True),
        sa.Column("trial_id", sa.BigInteger(), nullable=True),
        sa.Column("index", sa.Double(), nullable=True),
        sa.Column("coverage", sa.Double(), nullable=True),
        sa.Column("quality", sa.Double(), nullable=True),
        sa.Column("quality_reasons", _JSON, nullable=False),
        sa.Column("calls_per_s", sa.Double(), nullable=True),
        sa.Column("mean_ms", sa.Double(), nullable=True),
        sa.Column("rates", _JSON, nullable=False),
        sa.Column("gauges", _JSON, nullable=False),
        sa.Column("downsampled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_windows")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_windows_started_at", "windows", ["started_at"], unique=False)
    op.create_index("ix_windows_trial_id", "windows", ["trial_id", "started_at"], unique=False)
    op.create_table(
        "window_queries",
        sa.Column("window_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("mean_ms", sa.Double(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("shared_blocks_hit", sa.BigInteger(), nullable=False),
        sa.Column("shared_blocks_read", sa.BigInteger(), nullable=False),
        sa.Column("temp_blocks_written", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["window_id"],
            ["windows.id"],
            name=op.f("fk_window_queries_window_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("window_id", "key", name=op.f("pk_window_queries")),
        sqlite_with_rowid=False,
    )
