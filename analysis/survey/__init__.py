"""Thousands of model files: each audited in a child process of its own, all that is found in one lake."""
