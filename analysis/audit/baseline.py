"""Findings that somebody has accepted: those of an earlier audit."""

import json
from pathlib import Path

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.quoting import quoted
from emergraph.paths import read_file

MAX_BYTES = 64 << 20


def read_baseline(path: Path) -> frozenset[str]:
    """Return the fingerprints of the findings of an audit that was written with --format json.

    Raises:
        InvalidInputError: The file is missing, or not such an audit.
    """
    try:
        document = json.loads(read_file(path, limit=MAX_BYTES))
        found = [finding["fingerprint"] for finding in document["findings"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInputError(
            f"{quoted(path.name)} is not an audit: expected what emergraph audit MODEL --format json writes"
        ) from error
    if not all(isinstance(one, str) for one in found):
        raise InvalidInputError(f"{quoted(path.name)} is not an audit: its fingerprints are not text")
    return frozenset(found)
