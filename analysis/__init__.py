"""Analyses: what the graph of a network says about it."""
