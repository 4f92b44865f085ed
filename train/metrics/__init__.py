"""Measures of quality and rate."""
