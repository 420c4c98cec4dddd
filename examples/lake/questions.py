"""Five questions about a lake in SQL, and one checksum of their answers, whoever gives them."""

import hashlib
import json
from collections.abc import Callable, Iterable

TABLES = ("units", "layers", "blocks", "connections")
QUESTIONS = {
    "How many units has each graph?": """
        SELECT graph, count(*) AS n FROM units GROUP BY graph ORDER BY graph""",
    "How many parameters of each graph are zero?": """
        SELECT graph, sum(n_zeros) AS zeros, sum(n_params) AS parameters
        FROM layers GROUP BY graph ORDER BY graph""",
    "How many edges of which kind are there?": """
        SELECT b.kind AS kind, count(*) AS n
        FROM connections AS c JOIN blocks AS b ON b.graph = c.graph AND b.id = c.block
        GROUP BY b.kind ORDER BY kind""",
    "How many edges lead into the unit with the most, by graph?": """
        SELECT graph, max(n) AS n
        FROM (SELECT graph, dst, count(*) AS n FROM connections GROUP BY graph, dst) AS degrees
        GROUP BY graph ORDER BY graph""",
    "How many edges inhibit?": """
        SELECT graph, count(*) AS n FROM connections WHERE weight < 0 GROUP BY graph ORDER BY graph""",
}

Rows = Iterable[Iterable[object]]


def checksum(ask: Callable[[str], Rows]) -> str:
    """Ask all questions, print the answers, and return a checksum of them."""
    digest = hashlib.sha256()
    for question, sql in QUESTIONS.items():
        print(question)
        for row in ask(sql):
            values = [value if isinstance(value, str) else int(str(value)) for value in row]
            print("   ", *values)
            digest.update(json.dumps(values).encode())
    return digest.hexdigest()
