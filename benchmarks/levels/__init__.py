"""The ablation by level: the whole demonstration on a simulated server, arm by arm."""
