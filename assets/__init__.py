"""Weights, their cards and reference data that ship with the library."""
