"""Activation traces: what the units of a graph do on inputs, computed by running the model, or imported."""
