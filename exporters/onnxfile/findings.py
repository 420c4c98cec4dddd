"""Findings: one thing each that a user of a file should know, and the error that a refusal becomes."""

from dataclasses import dataclass
from enum import StrEnum

from emergraph.errors import EmergraphError, InvalidInputError, LimitError, UnsafeInputError

# The registry of everything that can be found in an ONNX file; `docs/findings.md` is generated from it.


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    """Worth knowing."""
    WARNING = "warning"
    """Read all the same; figures or other tools may be affected."""
    ERROR = "error"
    """The file is refused."""


@dataclass(frozen=True)
class FindingKind:
    """A kind of finding: its stable id, what it means and what follows."""

    id: str
    severity: Severity
    meaning: str
    """What was found and why it matters."""
    error: type[EmergraphError] | None = None
    """The error that reading ends with; None for findings that do not stop it."""


def _refused(error: type[EmergraphError], rows: dict[str, str]) -> list[FindingKind]:
    return [FindingKind(id_, Severity.ERROR, meaning, error) for id_, meaning in rows.items()]


def _noted(severity: Severity, rows: dict[str, str]) -> list[FindingKind]:
    return [FindingKind(id_, severity, meaning) for id_, meaning in rows.items()]


_ANY_FILE = {
    "FILE-EMPTY": "The file holds no bytes.",
    "FILE-FORMAT": "The file is not a readable model; the message names what it is.",
}

_INVALID = {
    "ONNX-FILE-SIZE": "The file is larger than the 2 GiB that a protobuf message may have.",
    "ONNX-WIRE-DAMAGED": "The protobuf encoding is damaged: a length past the end, or a malformed tag.",
    "ONNX-WIRE-DUPLICATE": "A field that may occur once occurs twice; readers disagree on which counts.",
    "ONNX-WIRE-TEXT": "A text field is not UTF-8.",
    "ONNX-MODEL-NONE": "No IR version or no graph: not an ONNX model.",
    "ONNX-GRAPH-CYCLE": "Operations depend on each other in a cycle.",
    "ONNX-GRAPH-DUPLICATE": "Two items of a graph produce the same name.",
    "ONNX-GRAPH-MISSING": "An operation or output reads a name that nothing produces.",
    "ONNX-NODE-INVALID": "An operation has no type, or an attribute is given twice or not readable.",
    "ONNX-OPSET-CONFLICT": "The versions of one operator set contradict each other.",
    "ONNX-OPSET-INVALID": "An operator set is imported in a version below 1 or beyond 31 bits.",
    "ONNX-FUNC-DUPLICATE": "Two local functions have the same domain, name and overload.",
    "ONNX-FUNC-RECURSIVE": "A local function calls itself, directly or by way of others.",
    "ONNX-TENSOR-TYPE": "A tensor has an element type that ONNX does not define.",
    "ONNX-TENSOR-SHAPE": "A tensor has a negative dimension, or more than 64 dimensions.",
    "ONNX-TENSOR-DATA": "A tensor's values do not fit its shape or type: too few, too many, out of range.",
    "ONNX-TENSOR-TWICE": "A tensor holds values in two places; readers disagree about which ones count.",
    "ONNX-TENSOR-SEGMENT": "A tensor is stored in segments, which no reader supports.",
    "ONNX-SPARSE-INVALID": "A sparse tensor has indices out of bounds, twice, or of the wrong shape.",
    "ONNX-EXT-MISSING": "The file with a tensor's values does not exist or cannot be read.",
    "ONNX-EXT-RANGE": "A tensor's offset or length does not lie inside the file with its values.",
}

_UNSAFE = {
    "ONNX-WIRE-DEPTH": "Messages are nested deeper than the 100 levels that protobuf readers accept.",
    "ONNX-FUNC-EXPANSION": "Local functions call each other so often that writing them out would not end.",
    "ONNX-TENSOR-HUGE": "A tensor claims more elements than any file can hold.",
    "ONNX-EXT-LOCATION": "The path to a tensor's values is not a plain relative one: absolute, a URL, ...",
    "ONNX-EXT-OUTSIDE": "The path to a tensor's values leads outside the model's folder.",
    "ONNX-EXT-SYMLINK": "The file with a tensor's values is reached through a symbolic link.",
    "ONNX-EXT-HARDLINK": "The file with a tensor's values has other hard links: it may be from elsewhere.",
    "ONNX-EXT-SPECIAL": "The path to a tensor's values leads to a pipe, a device or a folder.",
}

_LIMIT = {
    "ONNX-EXT-COUNT": "Values are in more files, or larger ones, than this process may open and map.",
    "ONNX-FILE-MEMORY": "The model without its weights would take more memory than the limit.",
}

_WARNINGS = {
    "ONNX-FOLD-HUGE": "An operation would make a constant of more elements than are folded.",
    "ONNX-FOLD-INVALID": "An operation is given a shape that no tensor can have.",
    "ONNX-NAME-CONTROL": "A name holds control or format characters: terminal escapes, reversed text, NUL.",
    "ONNX-NAME-LONG": "A name has more than 1000 characters.",
    "ONNX-OP-CUSTOM": "An operation of an unknown domain; it is traced as opaque.",
    "ONNX-OP-PYTHON": "An operation that stands for Python code elsewhere; it is opaque here and never run.",
    "ONNX-OP-TRAINING": "BatchNormalization or Dropout is in training mode: batch or chance decide.",
    "ONNX-OP-UNKNOWN": "A standard domain has no operation of this name; it is traced as opaque.",
    "ONNX-QUANT-SCALE": "A quantization scale is zero, negative or not finite; such weights have no value.",
    "ONNX-QUANT-SHAPE": "A quantization scale or zero point does not fit the tensor that it belongs to.",
    "ONNX-VALUE-NONFINITE": "Weights are NaN or infinite; measures are taken over the finite ones.",
    "ONNX-VALUE-ZERO": "All weights of a tensor are exactly zero: its layer has no connections.",
    "ONNX-GRAPH-UNSORTED": "Operations are not listed in execution order; they are sorted here.",
    "ONNX-GRAPH-SHADOWING": "A name inside a subgraph hides one outside; the inner one is meant here.",
    "ONNX-IR-VERSION": "The IR version is outside the known range.",
    "ONNX-OPSET-RANGE": "An operator set version is outside the known range.",
    "ONNX-OPSET-MISSING": "An operator set is used without being imported.",
    "ONNX-FUNC-OVERRIDE": "A local function has the name of a standard operation; the function is meant.",
    "ONNX-EXT-KEY": "External data has a key that ONNX does not define; it is ignored.",
    "ONNX-EXT-UNUSED": "A tensor holds its values and also names a place outside; the place is ignored.",
    "ONNX-TENSOR-EMPTY-HUGE": "A tensor without elements has other dimensions that are huge.",
}

_INFOS = {
    "ONNX-CONTROL-FLOW": "The model has subgraphs (If, Loop, Scan).",
    "ONNX-EXT-USED": "Values are in other files, which belong to the model.",
    "ONNX-NAME-ALIKE": "A name looks like another one: other scripts, accents, compatibility forms.",
    "ONNX-NAME-MARKUP": "A name holds characters that mean something in HTML, SQL, spreadsheets or paths.",
    "ONNX-OP-CONTRIB": "An operation of onnxruntime's own domains, outside the ONNX standard.",
    "ONNX-TENSOR-SKIPPED": "A tensor of text or complex numbers has no place in a weighted graph.",
    "ONNX-VALUE-SUBNORMAL": "Weights are so small that some processors round them to zero.",
    "ONNX-TRAINING-INFO": "The file also holds training graphs; they are left out.",
}

_FOLDER_UNSAFE = {
    "FOLDER-CODE": "A configuration of the folder asks for custom code (`auto_map` and the like).",
    "FOLDER-LINK": "A file of the folder is a symbolic link that leads out of it.",
}

_FOLDER_INVALID = {
    "FOLDER-FILE": "An entry of the folder is not a regular file, or cannot be opened.",
}

_FOLDER_LIMIT = {
    "FOLDER-LIMIT": "The folder has more files than are looked at, or a text that is larger.",
}

_FOLDER_WARNINGS = {
    "FOLDER-SCRIPT": "The folder contains source code, which other programs may run.",
    "FOLDER-LIBRARY": "The folder contains a program or native library, which other programs may load.",
    "FOLDER-CLOSED": "The folder holds an archive that was not looked into.",
    "FOLDER-CONFIG": "A configuration of the folder cannot be read.",
}

_FOLDER_INFOS = {
    "FOLDER-TEMPLATE": "The folder holds a template (Jinja), a small program that other programs run.",
}

FILE_KINDS: dict[str, FindingKind] = {
    kind.id: kind
    for kind in (
        *_refused(InvalidInputError, {**_ANY_FILE, **_FOLDER_INVALID}),
        *_refused(UnsafeInputError, _FOLDER_UNSAFE),
        *_refused(LimitError, _FOLDER_LIMIT),
        *_noted(Severity.WARNING, _FOLDER_WARNINGS),
        *_noted(Severity.INFO, _FOLDER_INFOS),
    )
}
"""What can be found in a file of any kind, and in a folder."""

KINDS: dict[str, FindingKind] = {
    kind.id: kind
    for kind in (
        *FILE_KINDS.values(),
        *_refused(InvalidInputError, _INVALID),
        *_refused(UnsafeInputError, _UNSAFE),
        *_refused(LimitError, _LIMIT),
        *_noted(Severity.WARNING, _WARNINGS),
        *_noted(Severity.INFO, _INFOS),
    )
}
"""Every kind of finding by its id."""


@dataclass(frozen=True)
class Finding:
    """One thing that a user of the file should know."""

    id: str
    """Stable id, a key of `registry.KINDS`, e.g. "ONNX-EXT-OUTSIDE"."""
    message: str
    """One line; names out of the file are made printable."""
    where: str = ""
    """Tensor, operation or part of the file, made printable; "" for the file as a whole."""
    root: str = ""
    """Folder that has to be named as root for a link to be followed; "" where it is about none."""

    @property
    def severity(self) -> Severity:
        """How much it matters; fixed by the id."""
        return KINDS[self.id].severity

    def __post_init__(self) -> None:
        if self.id not in KINDS:
            raise ValueError(f"{self.id} is not a registered finding")

    def line(self) -> str:
        """Return where and what in one line."""
        return f"{self.where}: {self.message}" if self.where else self.message

    def to_dict(self) -> dict[str, str]:
        """Return the finding as plain text fields."""
        return {"id": self.id, "severity": str(self.severity), "where": self.where, "message": self.message}


def refusal(finding_id: str, message: str, where: str = "", *, root: str = "") -> EmergraphError:
    """Return the error to raise for a finding that stops reading.

    The error's class, hence the exit code, is the registry's; `finding_id` and `where` travel with it.
    """
    finding = Finding(finding_id, message, where, root)
    error_class = KINDS[finding_id].error
    if error_class is None:
        raise ValueError(f"{finding_id} does not stop reading")
    error = error_class(finding.line())
    error.finding = finding
    return error


def finding_of(error: EmergraphError) -> Finding | None:
    """Return the finding behind an error that `refusal` made; None for any other error."""
    return error.finding if isinstance(error.finding, Finding) else None
