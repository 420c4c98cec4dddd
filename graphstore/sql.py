"""The one place where SQL text is put together."""


def compose(template: str, **parts: str | int) -> str:
    """Fill the `{placeholders}` of an SQL text.

    Values travel as parameters of the statement, never in its text. What goes into the text is written in
    this project (names of tables and columns, expressions, whole numbers), or is quoted by `identifier`.

    Example:
        >>> compose("SELECT * FROM {table} WHERE block = {block}", table="edges", block=3)
        'SELECT * FROM edges WHERE block = 3'
    """
    return template.format(**parts)


def identifier(name: str) -> str:
    """Return a name from a file, quoted so that it is nothing but a name.

    Example:
        >>> identifier('a"; DROP TABLE edges; --')
        '"a""; DROP TABLE edges; --"'
    """
    return '"' + name.replace('"', '""') + '"'
