"""Edges and parameters as arrays: tables of edges, kernels tap by tap, orders of edges, spanning forests."""
