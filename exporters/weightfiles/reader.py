"""Reading the weights of any supported file without running anything from it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import numpy as np

from emergraph.errors import EmergraphError, InvalidInputError
from emergraph.exporters.formats import Format, Inside, Reader, format_of
from emergraph.exporters.onnxfile.names import has_hidden_characters, printable
from emergraph.exporters.onnxfile.opening import MappedFile
from emergraph.exporters.weightfiles.beside import read_beside
from emergraph.exporters.weightfiles.build import Builder
from emergraph.exporters.weightfiles.checkpoint import Contents, add_checkpoint
from emergraph.exporters.weightfiles.exportedprogram import read_exported_program
from emergraph.exporters.weightfiles.files import map_file
from emergraph.exporters.weightfiles.globals import NOT_NEEDED, Policy
from emergraph.exporters.weightfiles.inside import Known
from emergraph.exporters.weightfiles.limits import DEFAULT_LIMITS, WeightLimits
from emergraph.exporters.weightfiles.npzfile import read_npz
from emergraph.exporters.weightfiles.plugged import ANY_PLUGIN, read_plugged
from emergraph.exporters.weightfiles.refuse import Finding, finding_of, refusal
from emergraph.exporters.weightfiles.safetensorsfile import read_safetensors
from emergraph.exporters.weightfiles.sharded import find_in_folder, read_sharded
from emergraph.exporters.weightfiles.tensors import LazyTensor
from emergraph.exporters.weightfiles.torchfiles import (
    read_legacy,
    read_torch_zip,
    read_torchscript,
)
from emergraph.exporters.weightfiles.unpickle import unpickle
from emergraph.exporters.weightfiles.weightfile import WeightFile
from emergraph.exporters.weightfiles.wrongformat import refuse_code, wrong_format
from emergraph.exporters.weightfiles.zipstrict import StrictZip, open_zip

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
    safetensors (also sharded, by index), TorchScript archives (weights only), exported programs (.pt2) and
    npz. No value is read until a tensor is asked for it.

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
    if not weights.tensors:
        message = "the file holds no weights" + (": " + weights.skipped[0].reason if weights.skipped else "")
        raise refusal("WEIGHTS-NONE", message)
    return replace(weights, config=MappingProxyType(read_beside(chosen, root)))


def _look_at(tensor: LazyTensor) -> list[Finding]:
    where = printable(tensor.name)
    findings = []
    if has_hidden_characters(tensor.name) or len(tensor.name) > _LONG_NAME:
        findings.append(Finding("TENSOR-NAME", "the name holds hidden characters or is very long", where))
    values = tensor.array()
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
        sha256=mapped.sha256,
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
    raise wrong_format(found, mapped, expected="a weight file (torch, safetensors, npz)", where=where)


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
