"""The safetensors format: the header's length, a JSON header, and the tensors without gaps or overlaps."""

import math

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.dtypes import DECODED, SAFETENSORS_DTYPES, stored_bytes
from emergraph.exporters.weightfiles.jsontext import parse_json
from emergraph.exporters.weightfiles.registry import Finding, refusal
from emergraph.exporters.weightfiles.tensors import LazyTensor, check_shape, packed_reader
from emergraph.exporters.weightfiles.weightfile import Contents

_METADATA = "__metadata__"
_MAX_METADATA = 1_000


def read_safetensors(data: memoryview, where: str, contents: Contents) -> None:
    """Read a safetensors file; no value is touched.

    Stricter than the reference reader, which lets duplicate keys pass (the last one wins).

    Args:
        data: The whole file.
        where: How to name it in messages.
        contents: Where the tensors go.

    Raises:
        InvalidInputError: a malformed header (SAFETENSORS-HEADER), tensors that overlap or leave holes
            (SAFETENSORS-LAYOUT), impossible shapes (TENSOR-SHAPE).
        UnsafeInputError: a key stands twice (SAFETENSORS-DUPLICATE).
        LimitError: more tensors than the limit (WEIGHTS-LIMIT).
    """
    length = int.from_bytes(data[:8], "little")
    limit = min(contents.limits.header_bytes, len(data) - 8)
    if length > limit:
        message = f"the header claims {length} bytes, at most {limit} are possible; fetch the file again"
        raise refusal("SAFETENSORS-HEADER", message, where)
    text = bytes(data[8 : 8 + length])
    if text[:1] != b"{":
        raise refusal("SAFETENSORS-HEADER", "the header does not start with an opening brace", where)
    header = parse_json(text, where, malformed="SAFETENSORS-HEADER", limit=limit)
    if not isinstance(header, dict):
        raise refusal("SAFETENSORS-HEADER", "the header is not a JSON object", where)
    _read_metadata(header.pop(_METADATA, {}), where, contents)
    if len(header) > contents.limits.tensors:
        message = f"the file has {len(header)} tensors, the limit is {contents.limits.tensors}"
        raise refusal("WEIGHTS-LIMIT", message, where)
    body = data[8 + length :]
    ranges = [_add(name, entry, body, contents) for name, entry in header.items()]
    _check_layout(ranges, len(body), where)


def _read_metadata(metadata: object, where: str, contents: Contents) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refusal("SAFETENSORS-HEADER", "__metadata__ is not an object of strings", where)
    for key, value in list(metadata.items())[:_MAX_METADATA]:
        contents.metadata[printable(key, 200)] = value[:1000]


def _add(name: str, entry: object, body: memoryview, contents: Contents) -> tuple[int, int]:
    """Check one entry of the header, add its tensor and return its range of bytes."""
    where = printable(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refusal("SAFETENSORS-HEADER", "expected dtype, shape and data_offsets, and nothing else", where)
    dtype = SAFETENSORS_DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise refusal("SAFETENSORS-HEADER", f"unknown dtype {printable(str(entry['dtype']))}", where)
    shape, offsets = _counts(entry["shape"], where), _counts(entry["data_offsets"], where)
    check_shape(shape, dtype, where)
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= len(body):
        found = printable(str(offsets))
        raise refusal(
            "SAFETENSORS-LAYOUT", f"data_offsets {found} do not lie inside {len(body)} bytes", where
        )
    start, end = offsets
    if stored_bytes(dtype, math.prod(shape)) != end - start:
        message = f"{end - start} bytes, but {dtype} of shape {printable(str(shape))} takes"
        raise refusal("SAFETENSORS-LAYOUT", f"{message} {stored_bytes(dtype, math.prod(shape))}", where)
    if dtype not in DECODED:
        contents.skip(name, f"elements of type {dtype} are not decoded", "TENSOR-UNREADABLE")
        return start, end
    if 0 in shape:
        contents.findings.append(
            Finding("TENSOR-EMPTY", f"shape {printable(str(shape))} has no elements", where)
        )
    reader = packed_reader(body[start:end], dtype, shape)
    contents.add_tensor(LazyTensor(name=name, dtype=dtype, shape=shape, _read=reader, _is_view=True))
    return start, end


def _counts(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(item) is not int or item < 0 for item in value):
        raise refusal("SAFETENSORS-HEADER", "shape and data_offsets must be lists of counts", where)
    return tuple(value)


def _check_layout(ranges: list[tuple[int, int]], size: int, where: str) -> None:
    """Check that the tensors fill the bytes behind the header, each byte once."""
    position = 0
    for start, end in sorted(ranges):
        if start != position:
            kind = "overlap" if start < position else "leave a hole"
            raise refusal("SAFETENSORS-LAYOUT", f"tensors {kind} at byte {min(start, position)}", where)
        position = end
    if position != size:
        message = f"{size - position} bytes follow the last tensor; another file may be hidden there"
        raise refusal("SAFETENSORS-LAYOUT", message, where)
