"""Which samples: splits, subsets, and random numbers addressed by what they are for."""
