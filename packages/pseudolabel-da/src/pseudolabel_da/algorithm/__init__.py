"""Incremental pseudo-labelling: what an epoch does, on which samples, and what is recorded of it."""
