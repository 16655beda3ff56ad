"""The demo store and the workload that runs against it."""
