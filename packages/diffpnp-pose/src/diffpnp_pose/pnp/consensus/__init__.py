"""Sample consensus over a batch: minimal samples, local optimisation, as many samples as needed."""
