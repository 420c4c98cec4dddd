"""Opening untrusted paths: regular files only, mapped into memory."""

import os
from pathlib import Path

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.formats import Reader, format_of
from emergraph.exporters.mappedfile import OUT_OF_RESOURCES, MappedFile, map_descriptor
from emergraph.exporters.onnxfile.findings import refusal
from emergraph.exporters.onnxfile.names import printable
from emergraph.paths import NotRegularError, open_descriptor

MAX_PROTOBUF_BYTES = (1 << 31) - 1
"""Bytes that a protobuf message may have."""


def map_model(path: Path) -> MappedFile:
    """Open and map the file that a user named.

    Raises:
        InvalidInputError: No such file, no permission, a folder, a pipe or a device, empty, larger than
            protobuf allows, or visibly another format.
        LimitError: The process may not map or open that much.
    """
    shown = printable(str(path), 200)
    try:
        descriptor, status = open_descriptor(path)
    except NotRegularError as error:
        raise InvalidInputError(f"{shown} is {error.kind}; expected a model file") from None
    except FileNotFoundError:
        raise InvalidInputError(f"no such file: {shown}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError(f"cannot open {shown}: {reason}") from None
    if status.st_size == 0:
        os.close(descriptor)
        raise refusal("FILE-EMPTY", "the file is empty; fetch it again")
    try:
        mapped = map_descriptor(descriptor, path, status)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES:
            raise LimitError(f"cannot map {shown}: {reason}; raise `ulimit`") from None
        raise InvalidInputError(f"cannot map {shown}: {reason}") from None
    found = format_of(path.name, mapped.content)
    if found.reader is not Reader.ONNX:
        # what looks into files of all formats is built on this module
        from emergraph.exporters.weightfiles.wrongformat import wrong_format

        raise wrong_format(found, mapped, expected="an ONNX model")
    if mapped.size > MAX_PROTOBUF_BYTES:
        raise refusal(
            "ONNX-FILE-SIZE",
            f"{mapped.size} bytes, but an ONNX file holds at most 2 GiB; save it with external data",
        )
    return mapped
