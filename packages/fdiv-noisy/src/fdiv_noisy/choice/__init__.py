"""Which loss to train with: candidates, their race on noisy labels that were kept back, and the verdict."""
