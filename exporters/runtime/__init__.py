"""Running a model in a child process: small concrete runs, mini-batches, limits."""
