"""Words of a corpus: counts, entropy, laws, divergence."""
