"""The autopilot: everything that observes, proposes, proves, applies and undoes."""
