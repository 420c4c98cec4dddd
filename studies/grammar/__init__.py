"""The experiment of arXiv 2408.12578 in small: a language with types, and a transformer that learns it."""
