"""A plug-in for emergraph."""
