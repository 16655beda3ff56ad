"""Level 1's policies: what they learn from, their networks, how they are judged, their files."""
