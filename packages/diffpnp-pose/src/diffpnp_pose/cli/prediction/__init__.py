"""Poses in new images and videos, and the network for use elsewhere."""
