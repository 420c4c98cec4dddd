"""The registry of everything that can be found in a weight file; `docs/findings.md` is generated from it."""

from emergraph.errors import EmergraphError, InvalidInputError, LimitError, UnsafeInputError
from emergraph.exporters.onnxfile.findings import KINDS, Finding, FindingKind, Severity, finding_of, refusal

__all__ = ["WEIGHT_KINDS", "Finding", "Severity", "finding_of", "refusal"]

_INVALID = {
    "WEIGHTS-FILE-MISSING": "The path leads to nothing, or to something that is not a regular file.",
    "WEIGHTS-FILE-VERSION": "The file is of a version or byte order that is not read.",
    "WEIGHTS-NONE": "The file is readable but holds no weights.",
    "WEIGHTS-NAME-TWICE": "Two tensors of a file would have the same name.",
    "ZIP-DAMAGED": "The zip archive is cut short, or a record does not match its checksum.",
    "ZIP-FEATURE": "The zip archive is encrypted, split, or compressed in a way that weight files never are.",
    "PICKLE-DAMAGED": "The pickle is cut short or malformed.",
    "PICKLE-VALUE": "The pickle rebuilds a tensor from values of the wrong kind.",
    "TENSOR-STORAGE": "The bytes of a tensor are missing, or not as many as the file declares.",
    "TENSOR-SHAPE": "A tensor has a negative dimension, too many, or a product that overflows.",
    "SAFETENSORS-HEADER": "The header of the safetensors file is not what the format defines.",
    "SAFETENSORS-LAYOUT": "The tensors of the file overlap, leave holes, or do not fill it.",
    "GGUF-HEADER": "The header of the GGUF file is cut short, or not what the format defines.",
    "GGUF-TYPE": "A tensor of the GGUF file is of an element type that is not known.",
    "GGUF-LAYOUT": "The tensors of the GGUF file overlap, leave holes, are not aligned, or do not fill it.",
    "GGUF-SPLIT": "The parts of a split GGUF file do not belong together.",
    "SHARD-MISSING": "A part that the index names does not exist, or lacks a tensor of it.",
    "SHARD-CONFLICT": "A tensor is in two parts, or not in the one that the index names.",
    "PT2-DAMAGED": "The exported program's tables of weights are not what the format defines.",
    "NPY-HEADER": "An array of the npz file has a header that is not what the format defines.",
}

_UNSAFE = {
    "ZIP-INCONSISTENT": "The archive says two things about one record, or hides bytes; readers differ.",
    "ZIP-DUPLICATE": "Two records of the zip archive have one name; readers differ in which one counts.",
    "ZIP-NAME": "A record's name leads out of the archive, or reads differently on different systems.",
    "ZIP-COMPRESSED": "A record that torch never compresses is compressed; it may unpack to gigabytes.",
    "ZIP-BOMB": "A record unpacks to far more bytes than it takes in the file.",
    "PICKLE-FOREIGN": "Weights need a class or function from elsewhere, whose code loading would run.",
    "PICKLE-CODE": "The pickle calls something that no weights need, such as a function of the system.",
    "PICKLE-MODULE": "The file holds a whole module, which needs its code; only weights can be read.",
    "PICKLE-OPCODE": "The pickle uses instructions that no weights need.",
    "PICKLE-BOMB": "The pickle is built to take far more memory or time than it has bytes.",
    "PICKLE-TRAILING": "Bytes follow the end of the pickle; readers differ in what they do with them.",
    "TENSOR-BOUNDS": "A tensor reaches beyond the bytes that it is stored in.",
    "TENSOR-EXPANDED": "A tensor claims more values than its bytes hold, by repeating or overlapping them.",
    "GGUF-DUPLICATE": "A key of the metadata occurs twice; readers differ in which one counts.",
    "SAFETENSORS-DUPLICATE": "A name occurs twice in a header; readers differ in which one counts.",
    "SHARD-OUTSIDE": "The index names a part outside the folder, or one reached through a symbolic link.",
    "PT2-PICKLE": "Weights of the exported program are pickles, which run code when they are loaded.",
    "NPY-PICKLE": "An array of the npz file is a pickle, which runs code when it is loaded.",
}

_LIMIT = {
    "WEIGHTS-LIMIT": "The file has more records, tensors or instructions than a limit, which can be raised.",
}

_WARNINGS = {
    "PICKLE-SKIPPED": "A class from elsewhere was left out; nothing of it was run. Other loaders import it.",
    "TENSOR-NO-DATA": "A tensor is only a description (device meta) without values.",
    "TENSOR-UNREADABLE": "A tensor is of a kind that is not decoded; it is left out.",
    "TENSOR-NONFINITE": "A tensor holds NaN or infinite values.",
    "TENSOR-NAME": "A name holds control, format or direction characters, or is very long.",
    "STORAGE-LONGER": "A storage has more bytes in the file than the pickle says; the rest is ignored.",
    "PT2-CODE": "The program holds example inputs, custom objects or compiled code, never opened.",
}

_INFOS = {
    "WEIGHTS-SKIPPED": "Tensors that are not weights were left out: optimizer state, random-number state.",
    "WEIGHTS-SEVERAL": "The file holds several sets of weights, for instance a model and its moving average.",
    "TENSOR-ALIAS": "Two names stand for one tensor (tied weights).",
    "TENSOR-EMPTY": "A tensor has no elements.",
    "TENSOR-VIEW": "A tensor shares bytes with another: a slice or a transpose.",
    "GGUF-TEMPLATE": "The metadata holds a template, which other programs run; it is not run here.",
    "TORCHSCRIPT-CODE": "The archive holds TorchScript code; it is listed and never run.",
}


def _kinds(
    severity: Severity, rows: dict[str, str], error: type[EmergraphError] | None = None
) -> list[FindingKind]:
    return [FindingKind(id_, severity, meaning, error) for id_, meaning in rows.items()]


WEIGHT_KINDS: dict[str, FindingKind] = {
    kind.id: kind
    for kind in (
        *_kinds(Severity.ERROR, _INVALID, InvalidInputError),
        *_kinds(Severity.ERROR, _UNSAFE, UnsafeInputError),
        *_kinds(Severity.ERROR, _LIMIT, LimitError),
        *_kinds(Severity.WARNING, _WARNINGS),
        *_kinds(Severity.INFO, _INFOS),
    )
}
"""Every kind of finding in a weight file by its id."""

KINDS.update(WEIGHT_KINDS)
