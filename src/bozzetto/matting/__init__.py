"""Cutting the object out of a photo."""
