"""The command line: the only package that prints, exits, or knows typer and rich."""
