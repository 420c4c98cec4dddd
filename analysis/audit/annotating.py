"""An ONNX file with the findings of its audit in its metadata, and every other byte as it was."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import StringStringEntryProto

from emergraph.analysis.audit.words import count
from emergraph.atomic import write_atomically
from emergraph.errors import LimitError, UsageError
from emergraph.exporters.onnxfile.findings import Severity
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.onnxfile.weightless_model import BYTES, encode_bytes, scan_fields
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.runtime.wholemodel import MAX_BYTES, TOO_LARGE
from emergraph.graphstore.catalog import to_json
from emergraph.version import __version__

if TYPE_CHECKING:
    from emergraph.analysis.audit.result import AuditResult

PREFIX = "emergraph.audit."
"""Of all keys that are written; entries of a file that begin with it are replaced."""
METADATA_PROPS = 14
"""Number of the field of a ModelProto that holds its metadata."""


def write_annotated(result: "AuditResult", out: Path, *, root: Path | None = None) -> None:
    """Write the audited ONNX file again, with what was found as entries of its metadata.

    Only entries whose keys begin with `PREFIX` differ: operations and weights are the same bytes, and values
    in other files stay there.

    Args:
        result: The audit.
        out: The file; beside the model where the model's values are in other files.
        root: Folder inside which files of the model may be links.

    Raises:
        UsageError: The model has values in other files, and `out` is in another folder.
        LimitError: The file would be larger than one ONNX file can be.
    """
    file = read_onnx(result.path, root=root)
    outside = sorted(file.external_files)
    if outside and out.absolute().parent.resolve() != file.path.absolute().parent.resolve():
        raise UsageError(
            f"{quoted(out.name)}: the model's values are in other files ({quoted(outside[0])}), which are "
            f"found beside it: name a file in the folder of {quoted(file.name)}"
        )
    kept = b"".join(_without_entries(file.content))
    entries = annotations(result, hashlib.sha256(kept).hexdigest())
    added = b"".join(
        encode_bytes(METADATA_PROPS, StringStringEntryProto(key=key, value=value).SerializeToString())
        for key, value in entries.items()
    )
    if len(kept) + len(added) > MAX_BYTES:
        raise LimitError(TOO_LARGE)
    write_atomically(out, kept + added)


def annotations(result: "AuditResult", sha256: str) -> Mapping[str, str]:
    """Return the entries that say what an audit found.

    Args:
        result: The audit.
        sha256: Of the file without entries of audits: with it, a reader can tell whether they are about it.
    """
    told = Counter(finding.severity for finding in result.findings)
    counted = [count(told[severity], str(severity)) for severity in reversed(Severity) if told[severity]]
    digits = len(str(len(result.findings)))
    lines = {
        f"{PREFIX}finding.{place:0{digits}}": f"{one.severity}, {one.grade}: {one.sentence} [{one.id}]"
        for place, one in enumerate(result.findings, 1)
    }
    document = result.to_dict()
    about = ("schema", "inputs", "findings", "accepted", "left_out")
    return {
        f"{PREFIX}by": f"emergraph {__version__}",
        f"{PREFIX}sha256": sha256,
        f"{PREFIX}summary": ", ".join(counted) or "nothing found",
        **lines,
        f"{PREFIX}json": to_json({name: document[name] for name in about}),
    }


def _without_entries(content: memoryview) -> Iterator[memoryview]:
    """The bytes of a model but for entries of audits."""
    begin = 0
    for number, wire, start, value, end in scan_fields(content, 0, len(content)):
        if number == METADATA_PROPS and wire == BYTES:
            entry = StringStringEntryProto.FromString(bytes(content[value:end]))
            if entry.key.startswith(PREFIX):
                yield content[begin:start]
                begin = end
    yield content[begin:]
