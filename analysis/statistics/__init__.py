"""Intervals, tests and surrogates: the only place where the house infers anything from repetitions."""
