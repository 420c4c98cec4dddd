"""Activation traces: per-unit statistics of a model on a batch of inputs."""
