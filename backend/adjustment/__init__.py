"""The parts of the parameter adjuster; ``backend.parameter_adjuster`` is their one user."""
