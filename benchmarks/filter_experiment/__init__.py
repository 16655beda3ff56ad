"""The parts of ``benchmarks.sample_filter``: is the sample filter worth it? docs/benchmarks.md."""
