"""Procedural sets, drawn here as they are asked for; each image is a function of (seed, class, index) alone."""
