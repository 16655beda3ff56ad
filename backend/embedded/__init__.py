"""The parts of the embedded PostgreSQL server; `backend.embedded_postgres` is their one user."""
