"""The explorer's parts: what is expected of a plan, what a probe is worth, what came true."""
