"""A one-shot report on a server: what was seen, and what might be changed. Changes nothing."""
