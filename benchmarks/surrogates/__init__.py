"""Tuning against random forests of recorded measurements: the parts of the benchmarks."""
