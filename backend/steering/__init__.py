"""Better plans for single queries: found carefully, served only where measured to win."""
