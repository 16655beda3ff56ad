"""Transitions and the knob spaces that they refer to: what offline training learns from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(sa.Text(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "knob_spaces",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("knobs", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_knob_spaces")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "transitions",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("workload", sa.Text(), nullable=False),
        sa.Column("knob_space", sa.Text(), nullable=False),
        sa.Column("state_layout", sa.Text(), nullable=False),
        sa.Column("state", _JSON, nullable=False),
        sa.Column("config", _JSON, nullable=False),
        sa.Column("objective", sa.Double(), nullable=True),
        sa.Column("quality", sa.Double(), nullable=True),
        sa.Column("censored", sa.Boolean(), nullable=False),
        sa.Column("reward_terms", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transitions")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_transitions_workload", "transitions", ["workload", "id"], unique=False)
