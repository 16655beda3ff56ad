"""Steering: what stands for each query class, the runs behind it, and what came of it in service."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(sa.Text(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "steered_classes",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("search_path", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", _JSON, nullable=True),
        sa.Column("default_ms", sa.Double(), nullable=True),
        sa.Column("plans", sa.BigInteger(), nullable=True),
        sa.Column("probes", sa.BigInteger(), nullable=False),
        sa.Column("explored_s", sa.Double(), nullable=True),
        sa.Column("query_keys", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "search_path", name=op.f("pk_steered_classes")),
    )
    op.create_table(
        "plan_runs",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("search_path", sa.Text(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("hint_set", sa.Text(), nullable=False),
        sa.Column("settings", _JSON, nullable=False),
        sa.Column("plan_hash", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("latency_s", sa.Double(), nullable=True),
        sa.Column("default_latency_s", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_runs")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_plan_runs_fingerprint", "plan_runs", ["fingerprint", "id"], unique=False)
    op.create_table(
        "service_timings",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("search_path", sa.Text(), nullable=False),
        sa.Column("hint_set", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("executions", sa.BigInteger(), nullable=False),
        sa.Column("total_s", sa.Double(), nullable=True),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("buckets", _JSON, nullable=False),
        sa.Column("downsampled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_timings")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_service_timings_ended_at", "service_timings", ["ended_at"], unique=False)
