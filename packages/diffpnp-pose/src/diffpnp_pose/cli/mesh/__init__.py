"""Training images drawn from an object's mesh."""
