"""Measurements that print one table each; see docs/benchmarks.md."""
