"""Which predictions become pseudo-labels: one rule a file."""
