"""Strategies and rates of windows, for the tests of what is computed from them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from backend.sample_filter import MIN_CALLS

few = settings(deadline=None, max_examples=40)
CALLS = st.integers(MIN_CALLS, 10_000)
MEAN_MS = st.floats(0.01, 10_000)
CLASSES = st.dictionaries(st.integers(0, 30), st.tuples(CALLS, MEAN_MS), min_size=1, max_size=12)
ANY_CLASSES = st.dictionaries(
    st.integers(0, 30), st.tuples(st.integers(0, 50), st.floats(0, 10_000)), max_size=12
)
RATES = (20.0, 10.0, 5.0, 2.0, 1.0, 0.4)
"""Calls per second of each class of a load."""
