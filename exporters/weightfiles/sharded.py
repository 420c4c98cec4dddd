"""Sharded weights: a `*.index.json` that says which part holds which tensor."""

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from emergraph.exporters.mappedfile import MappedFile
from emergraph.exporters.onnxfile.links import is_below, refuse_link
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.jsontext import parse_json
from emergraph.exporters.weightfiles.limits import DEFAULT_LIMITS, WeightLimits
from emergraph.exporters.weightfiles.registry import Finding, refusal
from emergraph.exporters.weightfiles.weightfile import Skipped, WeightFile

_IN_FOLDER = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""What a folder is looked through for, in this order."""


def find_in_folder(folder: Path, root: Path | None) -> Path:
    """Return the weight file of a folder as Hugging Face lays it out.

    Args:
        folder: The folder.
        root: Folder inside which the file may be a symbolic link, as in a download cache; None forbids it.

    Raises:
        InvalidInputError: there is none (WEIGHTS-FILE-MISSING).
        UnsafeInputError: it is a symbolic link to outside `root` (SHARD-OUTSIDE).
    """
    for name in _IN_FOLDER:
        if (folder / name).is_symlink() or (folder / name).exists():
            resolve_part(folder, name, root)
            return folder / name
    in_parts = checkpoint_in_parts(folder)
    if in_parts is not None:
        raise refusal("WEIGHTS-FILE-MISSING", in_parts)
    message = f"the folder holds none of {', '.join(_IN_FOLDER)}; name the weight file itself"
    raise refusal("WEIGHTS-FILE-MISSING", message)


def checkpoint_in_parts(folder: Path) -> str | None:
    """Say what to do with a folder in which training left a checkpoint in parts; None for any other one.

    Each process of a distributed run saves its share of every tensor (`.distcp` of torch, `zero_pp_rank_*` of
    DeepSpeed); the libraries that wrote them have commands that join them. Where DeepSpeed did not split the
    weights, one file holds them all.

    Args:
        folder: The folder; DeepSpeed's are looked for in the folders of its steps, too.
    """
    shown = printable(folder.name or str(folder))
    names, inner = _names(folder)
    for folder_name, inside in inner.items():
        names |= {f"{folder_name}/{name}" for name in inside}
    if any(name.endswith(".distcp") for name in names):
        where = next(name for name in sorted(names) if name.endswith(".distcp")).rpartition("/")[0]
        place = f"{shown}/{printable(where)}" if where else shown
        command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {place} weights.pt"
        return f"not a model but a distributed checkpoint of torch; join it: {command}"
    last = {name.rpartition("/")[2]: name for name in sorted(names)}
    parts = [name for name in last if _SPLIT.fullmatch(name)]
    whole = [name for name in last if _WHOLE.fullmatch(name)]
    if not parts and not (whole and "latest" in names):
        return None
    start = "not a model but a checkpoint of DeepSpeed"
    if len(whole) == 1:
        return f"{start}; its weights are in {printable(last[whole[0]])}: name that file"
    return f"{start} in parts; join them: python -m deepspeed.utils.zero_to_fp32 {shown} joined"


_SPLIT = re.compile(r"(bf16_)?zero_pp_rank_\d+_mp_rank_\d+_(model|optim)_states\.pt")
_WHOLE = re.compile(r"mp_rank_\d+_model_states\.pt")
_MAX_NAMES = 10_000


def _names(folder: Path) -> tuple[set[str], dict[str, set[str]]]:
    """The names in a folder, and those in the folders right below it; not of links, and not without end."""
    names: set[str] = set()
    inner: dict[str, set[str]] = {}
    try:
        for path in islice(folder.iterdir(), _MAX_NAMES):
            names.add(path.name)
            if path.is_dir() and not path.is_symlink():
                inner[path.name] = {below.name for below in islice(path.iterdir(), _MAX_NAMES)}
    except OSError:
        return set(), {}
    return names, inner


def read_sharded(
    index: MappedFile, limits: WeightLimits, root: Path | None, read: Callable[[Path], WeightFile]
) -> WeightFile:
    """Read all parts that an index names.

    Args:
        index: The index, `{"metadata": {...}, "weight_map": {tensor: file}}`.
        limits: Caps on the JSON text and the number of parts.
        root: Folder inside which parts may be symbolic links, as in a download cache; None forbids them.
        read: Reads one part.

    Raises:
        InvalidInputError: a part is missing or lacks a tensor (SHARD-MISSING), or a tensor is elsewhere than
            the index says (SHARD-CONFLICT), or the index is malformed (SAFETENSORS-HEADER).
        UnsafeInputError: a part outside the folder (SHARD-OUTSIDE).
    """
    placed = _weight_map(index, limits)
    names = sorted(set(placed.values()))
    if len(names) > limits.shards:
        raise refusal("WEIGHTS-LIMIT", f"the index names {len(names)} parts, the limit is {limits.shards}")
    parts = [(name, read(resolve_part(index.path.parent, name, root))) for name in names]
    return _join(index, placed, parts)


def _digest(index: MappedFile, parts: list[tuple[str, WeightFile]]) -> str:
    digest = hashlib.sha256(index.content)
    for _, part in parts:
        digest.update(part.sha256.encode())
    return digest.hexdigest()


def parts_of(index: MappedFile) -> tuple[str, ...]:
    """Return the names of the parts of an index that was read before."""
    return tuple(sorted(set(_weight_map(index, DEFAULT_LIMITS).values())))


def _weight_map(index: MappedFile, limits: WeightLimits) -> dict[str, str]:
    if index.size > limits.json_bytes:
        raise refusal("WEIGHTS-LIMIT", f"the index has {index.size} bytes, the limit is {limits.json_bytes}")
    parsed = parse_json(bytes(index.content), "", malformed="SAFETENSORS-HEADER", limit=limits.json_bytes)
    placed = parsed.get("weight_map") if isinstance(parsed, dict) else None
    if (
        not isinstance(placed, dict)
        or not placed
        or not all(isinstance(name, str) for name in placed.values())
    ):
        raise refusal("SAFETENSORS-HEADER", "the index has no weight_map from tensors to files")
    return placed


def resolve_part(folder: Path, name: str, root: Path | None) -> Path:
    """Return the path of a part after checking that it is a plain file of the folder (or inside `root`)."""
    shown = printable(name)
    if name in {"", ".", ".."} or any(sign in name for sign in ("/", "\\", "\0", ":")):
        raise refusal("SHARD-OUTSIDE", "the index must name files of its own folder", shown)
    path = folder / name
    try:
        status = os.lstat(path)
    except OSError:
        raise refusal(
            "SHARD-MISSING", "the part does not exist; fetch it into the folder of the index", shown
        ) from None
    if not stat.S_ISLNK(status.st_mode):
        return path
    if not is_below(path, root):
        raise refuse_link("SHARD-OUTSIDE", path, shown)
    return path


def _join(index: MappedFile, placed: dict[str, str], parts: list[tuple[str, WeightFile]]) -> WeightFile:
    tensors = {}
    metadata: dict[str, object] = {"parts": [name for name, _ in parts]}
    skipped: list[Skipped] = []
    findings: list[Finding] = []
    for file_name, part in parts:
        left_out = {entry.name for entry in part.skipped}
        for name, tensor in part.tensors.items():
            if placed.get(name) != file_name:
                found = printable(str(placed.get(name, "none")))
                message = f"it is in {printable(file_name)}, the index says {found}"
                raise refusal("SHARD-CONFLICT", message, printable(name))
            tensors[name] = tensor
        for name, expected in placed.items():
            if expected == file_name and name not in part.tensors and name not in left_out:
                raise refusal("SHARD-MISSING", f"{printable(file_name)} lacks the tensor", printable(name))
        metadata.update(part.metadata)
        skipped.extend(replace(entry, name=entry.name or file_name) for entry in part.skipped)
        findings.extend(part.findings)
    return WeightFile(
        source=index.path.name,
        format=parts[0][1].format,
        digest=lambda: _digest(index, parts),
        files={name: content for _, part in parts for name, content in part.files.items()},
        size=index.size + sum(part.size for _, part in parts),
        tensors=tensors,
        metadata=metadata,
        skipped=tuple(skipped),
        findings=tuple(findings),
    )
