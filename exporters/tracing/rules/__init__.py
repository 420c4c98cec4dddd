"""Tracing rules, one module per family of operations; the tracer registers all of them by importing them."""
