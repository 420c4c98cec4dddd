"""Unit tracing: labels that ride along the model's own operations."""
