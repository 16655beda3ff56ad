"""Runs and explains statements under hint sets in a session of its own."""
