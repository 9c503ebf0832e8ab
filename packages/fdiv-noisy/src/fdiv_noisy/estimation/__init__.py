"""Label noise from noisy labels alone."""
