"""The model file behind a graph: checked, with tensors replaced, ready to be run."""
