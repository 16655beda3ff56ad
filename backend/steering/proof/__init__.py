"""The gate of a hint set: it is served only after it was measured faster."""
