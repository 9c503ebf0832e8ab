"""Few-shot episodes: which images are drawn, and their batches."""
