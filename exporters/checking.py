"""`check_any`: everything that a user should know about a model file or folder, whatever it is."""

import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from emergraph.errors import EmergraphError, UsageError
from emergraph.exporters.formats import Format, Reader, format_of
from emergraph.exporters.mappedfile import MappedFile
from emergraph.exporters.onnxfile.check import check_onnx
from emergraph.exporters.onnxfile.findings import Finding, Severity
from emergraph.exporters.onnxfile.links import is_below, link_message, root_for
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.files import map_file
from emergraph.exporters.weightfiles.globals import NOT_NEEDED, Policy, Verdict
from emergraph.exporters.weightfiles.inside import CODE, code_inside
from emergraph.exporters.weightfiles.reader import check_weights
from emergraph.exporters.weightfiles.registry import finding_of
from emergraph.exporters.weightfiles.sharded import checkpoint_in_parts, parts_of
from emergraph.exporters.weightfiles.wrongformat import format_message

# Checking a folder: every file in it, not only the one that would be read.

_MAX_FILES = 20_000
_MAX_DEPTH = 40
_MAX_JSON = 64 << 20
_CODE_KEYS = frozenset({"auto_map", "custom_pipeline", "custom_pipelines", "custom_generate", "_target_"})
"""Keys of configurations that name code to run."""
_TRUST_KEYS = frozenset({"trust_remote_code"})
_TEMPLATES = frozenset({"chat_template"})
_CODE_SUFFIXES = (".py", ".pyc", ".pyw", ".sh", ".js", ".ps1", ".bat", ".ipynb")
_LIBRARIES = frozenset({"elf", "pe", "macho"})
_CLOSED = frozenset({"7z", "rar", "zstd", "lz4", "encrypted_zip"})
_POINTERS = frozenset({"lfs", "annex", "html"})
_MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".npz", ".h5")

CheckFile = Callable[..., list[Finding]]


@dataclass(frozen=True)
class _Entry:
    path: Path
    shown: str
    """Path below the folder, made printable."""


def check_folder(folder: Path, *, root: Path | None, check_file: CheckFile) -> list[Finding]:
    """Return what a user of a folder should know, file by file.

    Args:
        folder: The folder.
        root: Folder inside which files may be symbolic links.
        check_file: Checks one model or weight file.
    """
    findings: list[Finding] = []
    entries: list[_Entry] = []
    for found in _walk(folder, root):
        if isinstance(found, Finding):
            findings.append(found)
        else:
            entries.append(found)
    covered: set[Path] = set()
    models = 0
    for entry in sorted(
        entries, key=lambda entry: (not entry.path.name.endswith(".index.json"), entry.shown)
    ):
        if entry.path in covered:
            continue
        try:
            mapped = map_file(entry.path, entry.shown)
        except EmergraphError as error:
            findings.extend(_unreadable(error, entry))
            continue
        known = format_of(entry.path.name, mapped.content)
        if known.reader in {Reader.ONNX, Reader.WEIGHTS}:
            models += 1
            own = check_file(entry.path, root=root)
            findings.extend(_below(finding, entry) for finding in own)
            if known.name == "index" and not any(finding.severity == "error" for finding in own):
                covered.update(entry.path.parent / name for name in parts_of(mapped))
        else:
            findings.extend(_beside(entry, mapped, known))
    if not models and not any(finding.id == "FOLDER-LINK" for finding in findings):
        findings.append(_no_model(folder, entries))
    return findings


def _walk(folder: Path, root: Path | None) -> Iterator[_Entry | Finding]:
    seen: set[tuple[int, int]] = set()
    stack, count = [(folder, 0)], 0
    while stack:
        here, depth = stack.pop()
        try:
            status = here.stat()
            paths = sorted(here.iterdir())
        except OSError as error:
            yield Finding("FOLDER-FILE", f"cannot be opened: {error.strerror}", _shown(here, folder))
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for path in paths:
            count += 1
            if count > _MAX_FILES or depth > _MAX_DEPTH:
                what = f"more than {_MAX_FILES} files, or folders {_MAX_DEPTH} deep"
                yield Finding("FOLDER-LIMIT", f"{what}; the rest was not looked at")
                return
            shown = _shown(path, folder)
            if path.is_symlink() and not is_below(path, folder) and not is_below(path, root):
                yield Finding("FOLDER-LINK", link_message(path), shown, root=str(root_for(path)))
            elif path.is_dir():
                stack.append((path, depth + 1))
            else:
                yield from _regular(path, shown)


def _regular(path: Path, shown: str) -> Iterator[_Entry | Finding]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield Finding("FOLDER-FILE", f"cannot be opened: {error.strerror}", shown)
        return
    if stat.S_ISREG(mode):
        yield _Entry(path, shown)
    else:
        yield Finding("FOLDER-FILE", "a pipe, socket or device, no regular file", shown)


def _shown(path: Path, folder: Path) -> str:
    return printable(str(path.relative_to(folder)), 200)


def _below(finding: Finding, entry: _Entry) -> Finding:
    return replace(finding, where=f"{entry.shown}/{finding.where}" if finding.where else entry.shown)


def _unreadable(error: EmergraphError, entry: _Entry) -> Iterator[Finding]:
    finding = finding_of(error)
    empty = finding is not None and finding.id == "FILE-EMPTY"
    if finding is not None and (not empty or entry.path.suffix.lower() in _MODEL_SUFFIXES):
        yield replace(finding, where=entry.shown)


def _beside(entry: _Entry, mapped: MappedFile, known: Format) -> Iterator[Finding]:
    """What a file that is not a model means for a user of the folder."""
    suffix = entry.path.suffix.lower()
    if suffix in _CODE_SUFFIXES or known.name == "script":
        yield Finding("FOLDER-SCRIPT", "source code; it is never run here", entry.shown)
    elif known.name in _LIBRARIES:
        yield Finding("FOLDER-LIBRARY", f"{known.title}; it is never loaded here", entry.shown)
    elif known.name in _CLOSED:
        yield Finding("FOLDER-CLOSED", f"{known.title}, which was not looked into", entry.shown)
    elif known.name in _POINTERS and suffix in _MODEL_SUFFIXES:
        yield Finding("FILE-FORMAT", format_message(known, entry.path.name, expected="a model"), entry.shown)
    elif suffix == ".json" or known.name == "json":
        yield from _configuration(entry, mapped)
    elif suffix in {".jinja", ".j2"}:
        yield Finding("FOLDER-TEMPLATE", "a template for other programs; it is not run here", entry.shown)
    for finding in code_inside(entry.path.name, mapped.content):
        yield _below(finding, entry)


def _configuration(entry: _Entry, mapped: MappedFile) -> Iterator[Finding]:
    if mapped.size > _MAX_JSON:
        yield Finding("FOLDER-LIMIT", f"{mapped.size} bytes of JSON were not looked at", entry.shown)
        return
    named: dict[str, None] = {}

    def note(pairs: list[tuple[str, object]]) -> None:
        for key, value in pairs:
            if key in _CODE_KEYS or key in _TEMPLATES or (key in _TRUST_KEYS and value is True):
                named[key] = None

    try:
        json.loads(bytes(mapped.content), object_pairs_hook=note)
    except (ValueError, RecursionError) as error:
        if "config" in entry.path.name:
            yield Finding("FOLDER-CONFIG", f"no JSON that can be read ({type(error).__name__})", entry.shown)
    for key in named:
        if key in _TEMPLATES:
            yield Finding("FOLDER-TEMPLATE", f"{key}: a template for other programs", entry.shown)
        else:
            message = f"{key}: it asks for custom code, which is never run here"
            yield Finding("FOLDER-CODE", message, entry.shown)


def _no_model(folder: Path, entries: list[_Entry]) -> Finding:
    names = {entry.path.name for entry in entries}
    in_parts = checkpoint_in_parts(folder)
    if in_parts is not None:
        return Finding("FILE-FORMAT", in_parts)
    if "saved_model.pb" in names:
        return Finding("FILE-FORMAT", "not a model but a TensorFlow SavedModel; convert it to ONNX")
    if not entries:
        return Finding("FILE-FORMAT", "not a model but an empty folder; name the model file itself")
    return Finding("FILE-FORMAT", "not a model but a folder without one; name the model file itself")


def check_any(path: str | Path, *, root: Path | None = None, plugin: str | None = None) -> list[Finding]:
    """Return what a user of a model or weight file should know, the worst first; nothing in it is run.

    Whatever the file is, pickles that would run code when they are loaded are looked for everywhere in it: in
    archives of all kinds, behind other pickles, and in files that only look like something else.

    Args:
        path: A file, or a folder, of which every file is looked at.
        root: Folder inside which parts of the file may be symbolic links.
        plugin: A format plug-in that reads the file where nothing built in does; none is imported otherwise.

    Raises:
        InvalidInputError: The path names no file that can be read.
        UsageError: There is no such plug-in, or the path is a folder.
    """
    path = Path(path)
    if path.is_dir() and plugin is not None:
        raise UsageError(f"--plugin {plugin} reads one file: name it instead of its folder")
    if path.is_dir():
        return check_folder(path, root=root, check_file=check_file)
    return check_file(path, root=root, plugin=plugin)


def check_file(path: Path, *, root: Path | None, plugin: str | None = None) -> list[Finding]:
    """Return what a user of one file should know.

    Raises:
        InvalidInputError: It is missing, or no regular file.
    """
    try:
        mapped = map_file(path)
    except EmergraphError as error:
        finding = finding_of(error)
        if finding is None or finding.id != "FILE-EMPTY":
            error.args = (f"{printable(str(path), 200)}: {error}",)
            raise
        return [finding]
    found = format_of(path.name, mapped.content)
    if found.reader is Reader.ONNX:
        findings = check_onnx(path, root=root)
    elif found.reader is Reader.WEIGHTS or (found.reader is Reader.NONE and plugin is not None):
        findings = check_weights(path, root=root, plugin=plugin)
    else:
        message = format_message(found, path.name, expected="a model")
        findings = [Finding("FILE-FORMAT", message)]
    refused = any(each.severity is Severity.ERROR for each in findings)
    around = NOT_NEEDED if found.reader is Reader.WEIGHTS and not refused else frozenset()
    return _worst_first([*findings, *_more_code(findings, mapped, around, refused=refused)])


def _more_code(
    findings: list[Finding], mapped: MappedFile, around: frozenset[Verdict], *, refused: bool
) -> list[Finding]:
    """What is hidden where the format's own reader does not look.

    Where weights are read, classes that none of them needs were read around, and are findings already.
    """
    known = {(finding.id, finding.where) for finding in findings}
    hidden = code_inside(mapped.path.name, mapped.content, policy=Policy(around=around), refused=refused)
    return [finding for finding in hidden if (finding.id, finding.where) not in known]


def _worst_first(findings: list[Finding]) -> list[Finding]:
    order = list(reversed(Severity))
    return sorted(findings, key=lambda finding: (order.index(finding.severity), finding.id not in CODE))
