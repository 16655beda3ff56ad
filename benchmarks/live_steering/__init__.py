"""Steering on a live server: what the best plans give, and what is found of it."""
