"""The study of path-count emergence: what arXiv 2409.01568 claims, with seeds, intervals and every rule."""
