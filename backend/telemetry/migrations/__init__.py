"""Alembic's migrations of the store; run by ``backend.telemetry.opening``, never by hand."""
