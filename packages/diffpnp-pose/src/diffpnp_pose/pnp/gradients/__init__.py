"""The derivatives of a solved pose."""
