"""Parts of the plan agent: what is recorded, states, networks. The algorithm: query_optimizer."""
