"""The parts of the final report: what it says, and how it looks; ``backend.report`` writes it."""
