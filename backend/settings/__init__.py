"""The parts of the settings, which ``backend.config`` joins: sections, sources, their page."""
