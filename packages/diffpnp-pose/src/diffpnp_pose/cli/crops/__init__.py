"""Crops around an object, for images in which it is small."""
