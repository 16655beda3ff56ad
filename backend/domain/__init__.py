"""The nouns of the project: frozen values and pure functions; numpy only, no I/O."""
