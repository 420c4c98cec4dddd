"""Paths of a graph: what reaches what, along how many paths and which, and where they can be cut."""
