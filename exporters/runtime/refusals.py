"""What onnxruntime says when it refuses a model, made readable."""

import re
from dataclasses import dataclass

from emergraph.errors import InvalidInputError
from emergraph.exporters.operations import normal_domain
from emergraph.exporters.runtime.assembly import Assembly

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


def unsupported_in(text: str, assembly: Assembly | None) -> Unsupported | None:
    """Read from onnxruntime's message which operation it lacks."""
    if found := re.search(r"Fatal error: (\S*):(\w+)\(-?\d+\) is not a registered", text):
        return Unsupported(operation=(normal_domain(found[1]), found[2]))
    if "No Op registered for" in text and (found := re.search(r'\("emn\d+", (\w+), "([^"]*)"', text)):
        return Unsupported(operation=(found[2], found[1]))
    if "Could not find an implementation" in text and (found := re.search(r"'(emn\d+)'", text)):
        return Unsupported(node=assembly.nodes.get(found[1]) if assembly is not None else None)
    return None


def one_line(text: str) -> str:
    """A message as one line without control characters, cut to a readable length."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    flat = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", flat)
    # where in onnxruntime's own source it happened says nothing to a user
    flat = re.sub(r"/onnxruntime_src/\S+.*?\)( const)? ", "", flat)
    return flat if len(flat) <= _MESSAGE_CHARACTERS else flat[: _MESSAGE_CHARACTERS - 1] + "…"


def with_names(text: str, assembly: Assembly) -> str:
    """Put the file's names back where onnxruntime's message has neutral ones."""
    tensors = {slot: name for name, slot in assembly.slots.items()}

    def real(match: re.Match[str]) -> str:
        found = match.group(0)
        return tensors.get(found) or assembly.nodes.get(found) or found

    return re.sub(r"\bem[tn]\d+\b", real, text)
