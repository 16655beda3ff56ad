"""Serves what was proven, watches whether it still pays, and withdraws it."""
