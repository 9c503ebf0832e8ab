"""Batches that are a pure function of (seed, epoch, number), from memory or from files."""
