"""The f-divergence losses, the pair-conditional loss, and their rivals."""
