"""The parts of ``benchmarks.record_workloads``: measurements that the shipped agent learns from."""
