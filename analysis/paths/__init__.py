"""Paths through a unit graph: the conventions of a count, and the sweep that counts."""
