"""A page on which a graph is walked through, unit by unit: what is on it, and how it is packed."""
