"""Exploring recorded matrices query × hint set: the parts of the benchmark."""
