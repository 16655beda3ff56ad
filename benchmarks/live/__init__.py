"""The parts of ``benchmarks.knob_live``: tuners compared on a real server. docs/benchmarks.md."""
