"""The tensors of a GGUF file, and of one that was split."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.dtypes import stored_bytes
from emergraph.exporters.weightfiles.gguf.elements import BLOCKS, PLAIN, Blocks
from emergraph.exporters.weightfiles.gguf.header import Header, TensorInfo, read_header
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.registry import Finding, refusal
from emergraph.exporters.weightfiles.sharded import resolve_part
from emergraph.exporters.weightfiles.tensors import LazyTensor, check_shape, packed_reader
from emergraph.exporters.weightfiles.weightfile import Contents, WeightFile

SPLIT_COUNT, SPLIT_NUMBER, SPLIT_TENSORS = "split.count", "split.no", "split.tensors.count"
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.gguf)", re.DOTALL)
"""What llama.cpp names the parts of a split file."""
_TEMPLATE = "tokenizer.chat_template"


def read_gguf(data: memoryview, where: str, contents: Contents) -> None:
    """Read a GGUF file, or a part of a split one; no value is touched.

    Args:
        data: The whole file.
        where: How to name it in messages.
        contents: Where the tensors go; metadata goes there as `Value`s.

    Raises:
        InvalidInputError: See `read_header`; a type that GGUF does not define (GGUF-TYPE), tensors that
            overlap, leave holes, or lie outside (GGUF-LAYOUT), impossible shapes (TENSOR-SHAPE).
        UnsafeInputError, LimitError: See `read_header`.
    """
    header = read_header(data, where, contents.limits)
    contents.metadata.update(header.metadata)
    for key in header.metadata:
        if key.startswith(_TEMPLATE):
            message = f"{printable(key, 80)}: a template for other programs; it is not run here"
            contents.findings.append(Finding("GGUF-TEMPLATE", message, where))
    sizes = [_size(info) for info in header.tensors]
    _check_layout(header, sizes, len(data), where)
    for info, size in zip(header.tensors, sizes, strict=True):
        start = header.end + info.offset
        _add(info, data[start : start + size], contents)


def _size(info: TensorInfo) -> int:
    """Bytes that a tensor takes, after checking its shape and type on their own."""
    where = printable(info.name)
    block = BLOCKS.get(info.type)
    if block is None and info.type not in PLAIN:
        message = f"element type {info.type}, which is not known; a newer emergraph may know it"
        raise refusal("GGUF-TYPE", message, where)
    count = math.prod(info.dims)
    if block is None:
        check_shape(info.dims, PLAIN[info.type], where)
        return stored_bytes(PLAIN[info.type], count)
    check_shape(info.dims, "uint8", where)
    inner = info.dims[0] if info.dims else 1
    if inner % block.values:
        message = f"rows of {inner} values, but {block.name} packs {block.values} at a time"
        raise refusal("TENSOR-SHAPE", message, where)
    return count // block.values * block.n_bytes


def _check_layout(header: Header, sizes: list[int], n_bytes: int, where: str) -> None:
    """Check that the tensors fill the file behind the header, each aligned and each byte once."""
    room = n_bytes - header.end
    position = 0
    order = sorted(zip(header.tensors, sizes, strict=True), key=lambda pair: (pair[0].offset, pair[1]))
    for info, size in order:
        name = printable(info.name)
        if info.offset % header.alignment:
            message = f"it begins at byte {info.offset}, no multiple of {header.alignment}"
            raise refusal("GGUF-LAYOUT", message, name)
        if info.offset + size > room:
            message = f"it ends at byte {info.offset + size} of {max(room, 0)}; fetch the file again"
            raise refusal("GGUF-LAYOUT", message, name)
        if info.offset != position and size:
            kind = "overlaps the tensor before it" if info.offset < position else "leaves a hole before it"
            raise refusal("GGUF-LAYOUT", f"it {kind}: byte {info.offset}, expected {position}", name)
        position = max(position, -(-(info.offset + size) // header.alignment) * header.alignment)
    if room > position:
        message = f"{room - position} bytes follow the last tensor; another file may be hidden there"
        raise refusal("GGUF-LAYOUT", message, where)


def _add(info: TensorInfo, data: memoryview, contents: Contents) -> None:
    where = printable(info.name)
    shape = tuple(reversed(info.dims))
    if 0 in shape:
        contents.findings.append(
            Finding("TENSOR-EMPTY", f"shape {printable(str(shape))} has no elements", where)
        )
    if info.type in PLAIN:
        dtype = PLAIN[info.type]
        reader = packed_reader(data, dtype, shape)
        contents.add_tensor(LazyTensor(name=info.name, dtype=dtype, shape=shape, _read=reader, _is_view=True))
        return
    block = BLOCKS[info.type]
    if not block.decoded:
        contents.skip(info.name, f"elements of type {block.name} are not decoded", "TENSOR-UNREADABLE")
        return
    stored = (*shape[:-1], shape[-1] // block.values * block.n_bytes)
    reader = packed_reader(data, "uint8", stored)
    blocks = Blocks(block, shape, reader)
    contents.add_tensor(
        LazyTensor(name=info.name, dtype="uint8", shape=stored, blocks=blocks, _read=reader, _is_view=True)
    )


def split_parts(path: Path, weights: WeightFile, limits: WeightLimits) -> list[str] | None:
    """The names of all parts of the split file that one part belongs to; None for a file that is whole.

    Raises:
        InvalidInputError: Its name does not say which part it is (GGUF-SPLIT).
        LimitError: More parts than the limit (WEIGHTS-LIMIT).
    """
    count = _split(weights.metadata, SPLIT_COUNT, default=1)
    if count == 1:
        return None
    if count > limits.shards:
        raise refusal("WEIGHTS-LIMIT", f"the file has {count} parts, the limit is {limits.shards}")
    match = _PART.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        message = (
            f"a part of {count}, but its name does not end in -00001-of-{count:05d}.gguf; rename it back"
        )
        raise refusal("GGUF-SPLIT", message)
    return [f"{match['stem']}-{number:05d}-of-{count:05d}{match['end']}" for number in range(1, count + 1)]


def read_split(
    folder: Path, names: list[str], root: Path | None, read: Callable[[Path], WeightFile]
) -> WeightFile:
    """Read all parts of a split file.

    Args:
        folder: Where they are.
        names: As `split_parts` gives them.
        root: Folder inside which parts may be symbolic links; None forbids them.
        read: Reads one part.

    Raises:
        InvalidInputError: A part is missing (SHARD-MISSING), says that it is another one (GGUF-SPLIT), or
            holds a tensor that another one has (SHARD-CONFLICT).
        UnsafeInputError: A part leads outside (SHARD-OUTSIDE).
    """
    tensors: dict[str, LazyTensor] = {}
    parts: list[WeightFile] = []
    for number, name in enumerate(names):
        part = read(resolve_part(folder, name, root))
        shown = printable(name)
        if part.format != "gguf" or _split(part.metadata, SPLIT_COUNT) != len(names):
            raise refusal("GGUF-SPLIT", f"not a part of {len(names)}; fetch all parts again", shown)
        if _split(part.metadata, SPLIT_NUMBER) != number:
            found = printable(str(part.metadata.get(SPLIT_NUMBER)), 40)
            raise refusal("GGUF-SPLIT", f"it says that it is part {found}; expected {number}", shown)
        twice = next((one for one in part.tensors if one in tensors), None)
        if twice is not None:
            raise refusal("SHARD-CONFLICT", f"{shown} has it, and a part before it, too", printable(twice))
        tensors.update(part.tensors)
        parts.append(part)
    first = parts[0]
    n_tensors = len(tensors) + sum(len(part.skipped) for part in parts)
    expected = _split(first.metadata, SPLIT_TENSORS, default=n_tensors)
    if expected != n_tensors:
        raise refusal("GGUF-SPLIT", f"the parts hold {n_tensors} tensors; the first one says {expected}")
    return replace(
        first,
        digest=lambda: hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest(),
        files={name: content for part in parts for name, content in part.files.items()},
        size=sum(part.size for part in parts),
        tensors=tensors,
        metadata={**first.metadata, "parts": names},
        skipped=tuple(entry for part in parts for entry in part.skipped),
        findings=tuple(finding for part in parts for finding in part.findings),
    )


def _split(metadata: Mapping[str, object], key: str, *, default: int = -1) -> int:
    found = metadata.get(key, default)
    if type(found) is not int or (found < 0 and found != default):
        raise refusal("GGUF-SPLIT", f"{key} is {printable(str(found), 40)}; expected a count")
    return found
