"""Unit tracing: labels that are propagated through the model's own operations."""
