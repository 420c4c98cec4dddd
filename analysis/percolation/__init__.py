"""Percolation: what grows together as the edges of a network are added one by one (arXiv 2408.12578)."""
