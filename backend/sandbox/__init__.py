"""The sandbox: a candidate is tried on a copy, or on a stand-by, before it is tried live."""
