"""Which models are the same, derived from one another, or independent."""
