"""The catalogue of faults: what may go wrong under a tuner, done to real processes, repeated.

After each the last good configuration must stand in pg_settings and in postgresql.auto.conf, and
the store must be whole. ``make faults`` runs all of it and prints a table; pytest runs each fault
a few times.
"""
