"""Plans as data: their tree, their hash, their features, their text for people."""
