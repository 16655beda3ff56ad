"""The parts of ``python -m benchmarks.workload_shift``."""
