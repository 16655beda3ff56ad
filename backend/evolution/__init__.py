"""The parts of Level 2: genomes, the problems they learn on, their fitness, their archive."""
