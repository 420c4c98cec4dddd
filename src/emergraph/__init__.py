"""emergraph: a trained neural network as a weighted graph in a DuckDB file, and answers about it."""

from importlib.metadata import version

__version__ = version("emergraph")
