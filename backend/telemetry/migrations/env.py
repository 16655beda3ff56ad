"""Runs the migrations on the connection, and in the transaction, that ``opening`` holds."""

from alembic import context

from backend.telemetry.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
