"""The audit of a model: what is in the file, what is wrong with it, and what may go."""
