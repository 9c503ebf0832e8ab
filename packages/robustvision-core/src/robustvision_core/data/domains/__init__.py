"""Pairs of domains that share their classes."""
