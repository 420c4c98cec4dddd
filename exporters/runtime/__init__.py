"""Running a model safely: flattening its control flow, and one small concrete run in a child process."""
