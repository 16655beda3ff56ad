"""Statements: where they come from, what is kept of them, and which may be tried."""
