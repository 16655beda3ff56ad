"""On which server a change was made, so that one that took over is not taken for it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add two columns to the changes; of older ones nobody knows."""
    for name in ("timeline", "place"):
        op.add_column("changes", sa.Column(name, sa.Text(), nullable=False, server_default=""))
