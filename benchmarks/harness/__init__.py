"""What the live benchmarks share: a server with its data, an offered load, settled windows."""
