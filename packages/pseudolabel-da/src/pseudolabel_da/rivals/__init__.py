"""Other ways to adapt to a domain: alignment of features, adversaries, entropy on unlabelled batches."""
