"""What onnxruntime says when it refuses a model, made readable."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from emergraph.errors import InvalidInputError
from emergraph.exporters.operations import normal_domain

_MESSAGE_CHARACTERS = 300
LACKS_KERNEL = re.compile(r"Could not find an implementation|does not support double")
"""What onnxruntime says of a type that an operation has no kernel for; recurrences only when they run."""


@dataclass(frozen=True)
class Unsupported:
    """What onnxruntime cannot run: one kind of operation everywhere, or one node."""

    operation: tuple[str, str] | None = None
    """Domain and type."""
    node: str | None = None
    """Flat name."""


class ModelRefusedError(InvalidInputError):
    """onnxruntime refused to load or run the model on these inputs."""

    unsupported: Unsupported | None = None
    """The operation that onnxruntime does not have, where that is the reason."""


def unsupported_in(text: str, nodes: Mapping[str, str]) -> Unsupported | None:
    """Read from onnxruntime's message which operation it lacks; nodes by their neutral names."""
    if found := re.search(r"Fatal error: (\S*):(\w+)\(-?\d+\) is not a registered", text):
        return Unsupported(operation=(normal_domain(found[1]), found[2]))
    if "No Op registered for" in text and (found := re.search(r'\("emn\d+", (\w+), "([^"]*)"', text)):
        return Unsupported(operation=(found[2], found[1]))
    if "Could not find an implementation" in text and (found := re.search(r"'(emn\d+)'", text)):
        return Unsupported(node=nodes.get(found[1]))
    return None


def one_line(text: str) -> str:
    """A message as one line without control characters, cut to a readable length."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    flat = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", flat)
    # where in onnxruntime's own source it happened says nothing to a user
    flat = re.sub(r"/onnxruntime_src/\S+.*?\)( const)? ", "", flat)
    return flat if len(flat) <= _MESSAGE_CHARACTERS else flat[: _MESSAGE_CHARACTERS - 1] + "…"


def with_names(text: str, names: Mapping[str, str]) -> str:
    """Put the file's names back where onnxruntime's message has neutral ones."""

    def real(match: re.Match[str]) -> str:
        return names.get(match.group(0)) or match.group(0)

    return re.sub(r"\bem[tn]\d+\b", real, text)
