"""The version of this package, apart from `emergraph` itself so that every layer may import it."""

from importlib.metadata import version

__version__ = version("emergraph")
