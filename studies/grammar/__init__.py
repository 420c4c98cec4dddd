"""A small version of the experiment of arXiv 2408.12578: a language with types, and a transformer that learns it."""
