"""`check_any`: everything that a user should know about a model file or folder, whatever it is."""

from pathlib import Path

from emergraph.errors import EmergraphError, UsageError
from emergraph.exporters.folders import check_folder
from emergraph.exporters.formats import Reader, format_of
from emergraph.exporters.onnxfile import Finding, Severity, check_onnx
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.opening import MappedFile
from emergraph.exporters.weightfiles.files import map_file
from emergraph.exporters.weightfiles.globals import NOT_NEEDED, Policy, Verdict
from emergraph.exporters.weightfiles.inside import CODE, code_inside
from emergraph.exporters.weightfiles.reader import check_weights
from emergraph.exporters.weightfiles.refuse import finding_of
from emergraph.exporters.weightfiles.wrongformat import format_message


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
