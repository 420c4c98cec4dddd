"""Path-count emergence (arXiv 2409.01568): how many paths lead from inactive into active units."""
