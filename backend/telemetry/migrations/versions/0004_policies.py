"""Policies: what a version serves, the weights behind it, attempts of Level 1, genomes of Level 2."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(sa.Text(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add two columns to the versions, and three tables."""
    op.add_column(
        "policy_versions", sa.Column("steering", _JSON, server_default="[]", nullable=False)
    )
    op.add_column(
        "policy_versions", sa.Column("weights", _JSON, server_default="{}", nullable=False)
    )
    op.create_table(
        "served_hints",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("document", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_served_hints")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "policy_updates",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("deployed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("learnt_from", sa.BigInteger(), nullable=False),
        sa.Column("judged_on", sa.BigInteger(), nullable=False),
        sa.Column("gain", sa.Double(), nullable=True),
        sa.Column("gain_low", sa.Double(), nullable=True),
        sa.Column("gain_high", sa.Double(), nullable=True),
        sa.Column("coverage", sa.Double(), nullable=True),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.Column("replaced", sa.Text(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_updates")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "genomes",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("study", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("genes", _JSON, nullable=False),
        sa.Column("fitness", _JSON, nullable=False),
        sa.Column("profile", _JSON, nullable=False),
        sa.Column("comparison", _JSON, nullable=False),
        sa.Column("deployed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_genomes")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_genomes_study", "genomes", ["study", "id"], unique=False)
