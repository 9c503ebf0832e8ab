"""The losses: f-divergences, the pair-conditional loss, and one file for each rival."""
