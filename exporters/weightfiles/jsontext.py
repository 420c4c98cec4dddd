"""JSON from untrusted files: no duplicate keys, no NaN, bounded in bytes and depth."""

import json
from typing import NoReturn

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.registry import refusal
from emergraph.graphstore.text import first_line


class _DuplicateKeyError(ValueError):
    """A key stands twice in an object."""


def parse_json(text: bytes, where: str, *, malformed: str, limit: int) -> object:
    """Parse JSON strictly.

    Args:
        text: UTF-8 bytes.
        where: How to name the text in messages.
        malformed: Id of the finding when the text is not JSON.
        limit: Bytes at most.

    Raises:
        InvalidInputError: not JSON, not UTF-8, nested too deeply, NaN or infinite numbers (`malformed`).
        UnsafeInputError: a key stands twice (SAFETENSORS-DUPLICATE).
        LimitError: longer than the limit (WEIGHTS-LIMIT).
    """
    if len(text) > limit:
        raise refusal("WEIGHTS-LIMIT", f"{len(text)} bytes of JSON, the limit is {limit}", where)
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except _DuplicateKeyError as error:
        raise refusal(
            "SAFETENSORS-DUPLICATE", f"the key {printable(str(error))} occurs twice", where
        ) from None
    except RecursionError:
        raise refusal(malformed, "the JSON text is nested too deeply", where) from None
    except ValueError as error:
        reason = printable(first_line(error))
        raise refusal(malformed, f"the text is not valid JSON in UTF-8 ({reason})", where) from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
