"""Databases that can be tuned: implementations of ``protocols.TargetDatabase``."""
