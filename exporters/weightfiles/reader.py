"""Reading the weights of any supported file without running anything from it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import numpy as np

from emergraph.errors import EmergraphError, InvalidInputError
from emergraph.exporters.formats import Format, Inside, Reader, format_of
from emergraph.exporters.mappedfile import MappedFile
from emergraph.exporters.onnxfile.links import is_below
from emergraph.exporters.onnxfile.names import has_hidden_characters, printable
from emergraph.exporters.weightfiles.build import Builder
from emergraph.exporters.weightfiles.checkpoint import add_built, add_checkpoint
from emergraph.exporters.weightfiles.dtypes import PT2_DTYPES
from emergraph.exporters.weightfiles.files import map_file
from emergraph.exporters.weightfiles.gguf.reader import read_gguf, read_split, split_parts
from emergraph.exporters.weightfiles.globals import NOT_NEEDED, Policy
from emergraph.exporters.weightfiles.inside import Known
from emergraph.exporters.weightfiles.jsontext import parse_json
from emergraph.exporters.weightfiles.limits import DEFAULT_LIMITS, WeightLimits
from emergraph.exporters.weightfiles.npzfile import read_npz
from emergraph.exporters.weightfiles.numpyobjects import StorageRef, TensorRef
from emergraph.exporters.weightfiles.plugged import ANY_PLUGIN, read_plugged
from emergraph.exporters.weightfiles.registry import Finding, finding_of, refusal
from emergraph.exporters.weightfiles.safetensorsfile import read_safetensors
from emergraph.exporters.weightfiles.sharded import find_in_folder, read_sharded
from emergraph.exporters.weightfiles.tensors import LazyTensor
from emergraph.exporters.weightfiles.torchfiles import (
    archive_prefix,
    read_legacy,
    read_torch_zip,
    read_torchscript,
    refuse_compressed,
)
from emergraph.exporters.weightfiles.unpickle import unpickle
from emergraph.exporters.weightfiles.weightfile import Contents, WeightFile
from emergraph.exporters.weightfiles.wrongformat import refuse_code, wrong_format
from emergraph.exporters.weightfiles.zipstrict import StrictZip, open_zip
from emergraph.paths import open_file

# The .pt2 archives of torch.export.save: raw weights and the graph as JSON; nothing else is ever opened.

_OLD_GRAPH = "serialized_exported_program.json"
_OLD_WEIGHTS = ("serialized_state_dict.pt", "serialized_constants.pt")
_STRIDED = 7
"""torch/_export/serde/schema.py, Layout.Strided."""
_CLOSED = ("data/sample_inputs/", "data/aotinductor/", "data/executorch/", "extra/", "archived_inputs/")


def read_exported_program(archive: StrictZip, contents: Contents, *, allow_missing: bool) -> None:
    """Read weights and graphs of an exported program.

    Args:
        archive: The archive.
        contents: Where tensors, graphs and findings go.
        allow_missing: For the pickled state dict of the older format: read tensors next to foreign classes.

    Raises:
        InvalidInputError: malformed tables (PT2-DAMAGED), missing or short weights (TENSOR-STORAGE).
        UnsafeInputError: weights that are pickles (PT2-PICKLE), or tensors outside their storage.
    """
    if _OLD_GRAPH in archive.records:
        _read_old(archive, contents, allow_missing=allow_missing)
        return
    refuse_compressed(archive)
    prefix = archive_prefix(archive)
    closed = []
    for name in archive.records:
        inner = name.split("/", 1)[-1]
        if inner.startswith("models/") and inner.endswith(".json"):
            _read_graph(archive, name, contents)
        elif inner.startswith("data/weights/") and inner.endswith(".json"):
            _read_table(archive, name, f"{prefix}/data/weights/", contents, pickled_is_fatal=True)
        elif inner.startswith("data/constants/") and inner.endswith(".json"):
            _read_table(archive, name, f"{prefix}/data/constants/", contents, pickled_is_fatal=False)
        elif inner.startswith("data/weights/") and inner.endswith(".pt"):
            _read_nested(archive, name, contents, allow_missing=allow_missing)
        elif inner.startswith(_CLOSED) or inner.endswith((".so", ".pt", ".cpp")):
            closed.append(inner)
    if closed:
        listed = ", ".join(printable(name) for name in closed[:3])
        message = f"{len(closed)} records hold pickles or compiled code and were not opened ({listed})"
        contents.findings.append(Finding("PT2-CODE", message))


def _read_old(archive: StrictZip, contents: Contents, *, allow_missing: bool) -> None:
    """The format up to torch 2.7: plain files, the weights as torch.save writes them."""
    _read_graph(archive, _OLD_GRAPH, contents)
    for name in _OLD_WEIGHTS:
        if name in archive.records:
            _read_nested(archive, name, contents, allow_missing=allow_missing)
    if "serialized_example_inputs.pt" in archive.records:
        contents.findings.append(Finding("PT2-CODE", "the example inputs are a pickle and were not opened"))


def _read_nested(archive: StrictZip, name: str, contents: Contents, *, allow_missing: bool) -> None:
    data = archive.stored(name)
    if len(data):
        inner = open_zip(data, printable(name), contents.limits)
        read_torch_zip(inner, contents, allow_missing=allow_missing)


def _read_graph(archive: StrictZip, name: str, contents: Contents) -> None:
    text = archive.unpack(name, contents.limits.json_bytes)
    graph = parse_json(text, printable(name), malformed="PT2-DAMAGED", limit=contents.limits.json_bytes)
    contents.programs[name.split("/", 1)[-1]] = graph


def _read_table(
    archive: StrictZip, record: str, folder: str, contents: Contents, *, pickled_is_fatal: bool
) -> None:
    """Add the tensors of a table: name to record, element type, shape, strides, offset."""
    where = printable(record)
    text = archive.unpack(record, contents.limits.json_bytes)
    table = parse_json(text, where, malformed="PT2-DAMAGED", limit=contents.limits.json_bytes)
    config = table.get("config") if isinstance(table, dict) else None
    if not isinstance(config, dict):
        raise refusal("PT2-DAMAGED", "the table of weights has no config", where)
    leaves: dict[str, TensorRef] = {}
    for name, entry in config.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("path_name"), str):
            raise refusal("PT2-DAMAGED", "an entry of the table names no record", printable(name))
        if entry.get("use_pickle") is not False:
            if pickled_is_fatal:
                message = (
                    "its bytes are a pickle, which torch.export.load would run; export the program again"
                )
                raise refusal("PT2-PICKLE", message, printable(name))
            contents.skip(name, "it is a pickled object, which was not opened", "PT2-CODE")
            continue
        leaves[name] = _reference(archive, folder, name, entry)

    def load(key: str, _: int) -> memoryview:
        return archive.stored(key)

    builder = Builder(load, contents.limits)
    for name, leaf in leaves.items():
        builder.add(name, leaf)
    add_built(builder, contents)


def _reference(archive: StrictZip, folder: str, name: str, entry: dict[str, object]) -> TensorRef:
    where = printable(name)
    path, meta = f"{folder}{entry['path_name']}", entry.get("tensor_meta")
    if path not in archive.records or not isinstance(meta, dict):
        raise refusal("TENSOR-STORAGE", f"record {printable(path)} or its description is missing", where)
    dtype = PT2_DTYPES.get(meta["dtype"]) if type(meta.get("dtype")) is int else None
    if dtype is None or meta.get("layout") != _STRIDED:
        raise refusal("PT2-DAMAGED", "the element type or layout is unknown", where)
    sizes, strides = _integers(meta.get("sizes"), where), _integers(meta.get("strides"), where)
    offset = _integers([meta.get("storage_offset")], where)[0]
    storage = StorageRef(path, "uint8", archive.records[path].size)
    return TensorRef(storage=storage, dtype=dtype, offset=offset, shape=sizes, strides=strides)


def _integers(values: object, where: str) -> tuple[int, ...]:
    """Read a list of {"as_int": n}; symbolic sizes have no place in weights."""
    if not isinstance(values, list):
        raise refusal("PT2-DAMAGED", "sizes, strides and offset must be integers", where)
    found = [value.get("as_int") if isinstance(value, dict) else None for value in values]
    integers = tuple(value for value in found if type(value) is int)
    if len(integers) != len(values):
        raise refusal("PT2-DAMAGED", "sizes, strides and offset must be integers", where)
    return integers


# What stands beside a weight file: the settings of its quantization and of its adapters.

_MAX_BYTES = 1 << 20
_QUANTIZED = ("quantization_config", "compression_config")
_WHOLE = {"quantize_config.json": "gptq", "quant_config.json": "awq", "quantization_config.json": None}
"""Files that hold nothing but the settings of a quantization, with the method whose file it is."""


def read_beside(path: Path, root: Path | None) -> dict[str, object]:
    """Read the settings beside a weight file, as far as reading its weights needs them.

    A file that is missing, is not a JSON object, or links to outside says nothing: weights that would need
    it are then named as not understood.

    Args:
        path: The weight file.
        root: Folder inside which links are followed.

    Returns:
        "quantization_config" and "adapter_config", each where there is one.
    """
    folder = path.parent
    found: dict[str, object] = {}
    settings = _settings_of(folder / "config.json", root)
    nested = settings.get("text_config")
    for place in (settings, nested if isinstance(nested, dict) else {}):
        for key in _QUANTIZED:
            if isinstance(place.get(key), dict):
                found.setdefault("quantization_config", place[key])
    for name, method in _WHOLE.items():
        if "quantization_config" not in found and (given := _settings_of(folder / name, root)):
            found["quantization_config"] = {**({"quant_method": method} if method else {}), **given}
    adapter = _settings_of(folder / "adapter_config.json", root)
    if adapter:
        found["adapter_config"] = adapter
    return found


def _settings_of(path: Path, root: Path | None) -> Mapping[str, object]:
    if not path.is_file() or (path.is_symlink() and not is_below(path, root or path.parent)):
        return {}
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size > _MAX_BYTES:
                return {}
            parsed = parse_json(
                file.read(_MAX_BYTES), path.name, malformed="SAFETENSORS-HEADER", limit=_MAX_BYTES
            )
    except (OSError, EmergraphError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


_LONG_NAME = 1_000


def read_weights(
    path: Path | str,
    *,
    allow_missing_classes: bool = False,
    limits: WeightLimits = DEFAULT_LIMITS,
    root: Path | None = None,
    plugin: str | None = ANY_PLUGIN,
) -> WeightFile:
    """Read the weights of a file, or of a folder in Hugging Face's layout, without running anything from it.

    State dicts of torch (zip archives, and the older pickles), checkpoints and Lightning files around them,
    safetensors (also sharded, by index), GGUF (also split), TorchScript archives (weights only), exported
    programs (.pt2) and npz. No value is read until a tensor is asked for it.

    Args:
        path: The file, a `*.index.json`, or a folder.
        allow_missing_classes: Read the tensors of a pickle that also holds objects of classes from
            elsewhere; the classes are not looked for, their objects become placeholders and are listed in
            `skipped`.
        limits: Caps that hold while reading.
        root: Folder inside which the parts of a sharded file, or the file in a folder, may be symbolic links.
        plugin: Which format plug-in may read what nothing built in reads, in a child process: ANY_PLUGIN for
            whichever knows the file, the name of one, or None.

    Returns:
        The tensors by name, in file order, with metadata, what was skipped, and findings.

    Raises:
        InvalidInputError: the file is missing, damaged, or no weight file.
        UnsafeInputError: it asks for code, reaches outside, or claims absurd sizes. The error's `finding`
            says which.
        LimitError: it is larger than the limits.

    Example:
        >>> weights = read_weights("model.safetensors")  # doctest: +SKIP
        >>> weights.tensors["encoder.weight"].array().shape  # doctest: +SKIP
        (384, 1536)
    """
    try:
        return _read(Path(path), limits, root, allow_missing=allow_missing_classes, plugin=plugin)
    except EmergraphError as error:
        finding = finding_of(error)
        if finding is not None:
            error.args = (f"{printable(Path(path).name)}: {finding.line()} [{finding.id}]",)
        raise


def check_weights(
    path: Path | str,
    *,
    limits: WeightLimits = DEFAULT_LIMITS,
    root: Path | None = None,
    plugin: str | None = None,
) -> list[Finding]:
    """Say everything that a user of a weight file should know before trusting it.

    The values are read once, tensor by tensor, to count NaN and infinities.

    Args:
        path: As for `read_weights`.
        limits: Caps that hold while reading.
        root: Folder inside which the parts of a sharded file may be symbolic links.
        plugin: As for `read_weights`.

    Returns:
        Findings with stable ids, in file order; a file that is refused has the reason as its one error.
    """
    try:
        weights = read_weights(path, limits=limits, root=root, plugin=plugin)
        findings = list(weights.findings)
        for tensor in weights.tensors.values():
            findings.extend(_look_at(tensor))
    except EmergraphError as error:
        finding = finding_of(error)
        if finding is None:
            raise
        return [finding]
    return findings


def _read(
    path: Path, limits: WeightLimits, root: Path | None, *, allow_missing: bool, plugin: str | None
) -> WeightFile:
    chosen = find_in_folder(path, root) if path.is_dir() else path
    mapped = map_file(chosen)

    def read(part: Path) -> WeightFile:
        where = printable(part.name)
        return _read_one(map_file(part, where), limits, where, allow_missing=allow_missing)

    if chosen.name.endswith(".index.json"):
        weights = read_sharded(mapped, limits, root, read)
    else:
        weights = _read_one(mapped, limits, "", allow_missing=allow_missing, plugin=plugin)
    names = split_parts(chosen, weights, limits) if weights.format == "gguf" else None
    if names is not None:
        weights = read_split(chosen.parent, names, root, read)
    if not weights.tensors:
        message = "the file holds no weights" + (": " + weights.skipped[0].reason if weights.skipped else "")
        raise refusal("WEIGHTS-NONE", message)
    return replace(weights, config=MappingProxyType(read_beside(chosen, root)))


def _look_at(tensor: LazyTensor) -> list[Finding]:
    where = printable(tensor.name)
    findings = []
    if has_hidden_characters(tensor.name) or len(tensor.name) > _LONG_NAME:
        findings.append(Finding("TENSOR-NAME", "the name holds hidden characters or is very long", where))
    values = tensor.array() if tensor.blocks is None else tensor.blocks.floats()
    if tensor.alias_of is None and values.dtype.kind not in "biu":
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            findings.append(
                Finding("TENSOR-NONFINITE", f"{bad} of {values.size} values are NaN or infinite", where)
            )
    return findings


def _read_one(
    mapped: MappedFile, limits: WeightLimits, where: str, *, allow_missing: bool, plugin: str | None = None
) -> WeightFile:
    contents = Contents(limits)
    found = format_of(mapped.path.name, mapped.content)
    try:
        kind = None
        if found.reader is Reader.NONE and plugin is not None:
            kind = read_plugged(mapped, plugin, contents)
        if kind is None:
            kind = _dispatch(found, mapped, where, contents, allow_missing=allow_missing)
    except InvalidInputError as error:
        finding = finding_of(error)
        if finding is not None and finding.id == "FILE-FORMAT":  # `wrong_format` has looked
            raise
        refuse_code(mapped, limits, where, policy=Policy(allow_missing=allow_missing))
        raise
    if kind in _SCANNED:  # an archive may hold more than its reader opens, a file more than its pickles
        around = NOT_NEEDED if found.inside is Inside.PICKLE else frozenset()
        policy = Policy(allow_missing=allow_missing, around=around)
        refuse_code(mapped, limits, where, policy=policy, known=_SCANNED[kind])
    return WeightFile(
        source=mapped.path.name,
        format=kind,
        digest=lambda: mapped.sha256,
        files=MappingProxyType({mapped.path.name: mapped.content}),
        size=mapped.size,
        tensors=MappingProxyType(contents.tensors),
        metadata=MappingProxyType(contents.metadata),
        programs=MappingProxyType(contents.programs),
        skipped=tuple(contents.skipped),
        findings=tuple(contents.findings),
    )


def _dispatch(
    found: Format, mapped: MappedFile, where: str, contents: Contents, *, allow_missing: bool
) -> str:
    """Recognise the format, read it, and return its name as `WeightFile.format` has it."""
    if found.inside is Inside.ZIP and found.reader is Reader.WEIGHTS:
        archive = open_zip(mapped.content, where, contents.limits)
        if found.name in _ARCHIVES:
            gives, read_archive = _ARCHIVES[found.name]
            read_archive(archive, contents, allow_missing=allow_missing)
            return gives
    elif found.name in _FILES:
        gives, read = _FILES[found.name]
        read(mapped.content, where, contents, allow_missing=allow_missing)
        return gives
    raise wrong_format(found, mapped, expected="a weight file (torch, safetensors, GGUF, npz)", where=where)


def _package(archive: StrictZip, _contents: Contents, *, allow_missing: bool) -> NoReturn:
    del allow_missing
    message = "a torch.package archive, which is code; save only the weights, as a state dict"
    raise refusal("PICKLE-MODULE", message, archive.where)


def _torchscript(archive: StrictZip, contents: Contents, *, allow_missing: bool) -> None:
    del allow_missing  # it defines its classes itself
    read_torchscript(archive, contents)


def _legacy(data: memoryview, where: str, contents: Contents, *, allow_missing: bool) -> None:
    read_legacy(data, where, contents, contents.limits, allow_missing=allow_missing)


def _safetensors(data: memoryview, where: str, contents: Contents, *, allow_missing: bool) -> None:
    del allow_missing  # it holds no classes
    read_safetensors(data, where, contents)


def _gguf(data: memoryview, where: str, contents: Contents, *, allow_missing: bool) -> None:
    del allow_missing  # it holds no classes
    read_gguf(data, where, contents)


def _read_plain_pickle(data: memoryview, where: str, contents: Contents, *, allow_missing: bool) -> None:
    """Read a pickle that is not torch's: dicts of numpy arrays."""
    pickled = unpickle(
        data, where, contents.limits, policy=Policy(allow_missing=allow_missing, around=NOT_NEEDED)
    )
    if pickled.end != len(data):
        message = f"{len(data) - pickled.end} bytes follow the end of the pickle"
        raise refusal("PICKLE-TRAILING", message, where)

    def load(key: str, _: int) -> memoryview:
        raise refusal("TENSOR-STORAGE", f"storage {printable(key)} is not in the file", where)

    add_checkpoint(pickled, Builder(load, contents.limits), contents)


_ARCHIVES: Mapping[str, tuple[str, Callable[..., None]]] = {
    "torch_package": ("torch_package", _package),
    "exported_program": ("exported_program", read_exported_program),
    "torchscript": ("torchscript", _torchscript),
    "torch_zip": ("state_dict", read_torch_zip),
    "npz": ("npz", read_npz),
}
"""Readers of archives by the name of the format, with the name that they give the file."""
_FILES: Mapping[str, tuple[str, Callable[..., None]]] = {
    "legacy_torch": ("state_dict", _legacy),
    "gguf": ("gguf", _gguf),
    "safetensors": ("safetensors", _safetensors),
    "pickle": ("pickle", _read_plain_pickle),
}
"""Readers of other files."""
READERS = frozenset({"index", "zip", *_ARCHIVES, *_FILES})
"""Formats that are read here: an index by its parts; other zip archives as far as to say what is wrong."""
_SCANNED: Mapping[str, Known] = {
    "torchscript": lambda name: name in {"data.pkl", "constants.pkl"},
    "state_dict": lambda name: name == "data.pkl",
    "npz": lambda name: name.endswith(".npy"),
}
"""Formats of archives, and which of their records the readers scan.

Exported programs are not among them: their reader warns of what may be code, and leaves it closed.
"""
