"""`check_onnx`: everything that a user of a file should know, without building a graph."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from onnx import SparseTensorProto

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.constants import constants
from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.limits import DEFAULT_LIMITS, ReadLimits
from emergraph.exporters.onnxfile.name_checks import name_findings
from emergraph.exporters.onnxfile.operation_checks import (
    operation_findings,
    size_findings,
    training_findings,
)
from emergraph.exporters.onnxfile.quantization_checks import quantization_findings
from emergraph.exporters.onnxfile.reader import OnnxFile, load
from emergraph.exporters.onnxfile.report import FindingLog
from emergraph.exporters.onnxfile.traverse import Body, bodies, body_tensors
from emergraph.exporters.onnxfile.value_checks import value_findings


def check_onnx(
    path: str | Path, *, limits: ReadLimits = DEFAULT_LIMITS, root: str | Path | None = None
) -> list[Finding]:
    """Return what a user of an ONNX file should know, the worst first.

    Everything that `read_onnx` refuses is an error here, and the rest of the file is looked at all the same
    unless its encoding is damaged. Nothing in the file is run. At most 20 findings of one id are listed, the
    others are counted.

    Args:
        path: The model file.
        limits: How much is believed.
        root: As in `read_onnx`.

    Raises:
        InvalidInputError: The path names no file that can be read.
    """
    report = FindingLog(collect_all=True)
    try:
        file = load(Path(path), limits=limits, root=root, report=report)
    except EmergraphError as error:
        report.add_error(error)
        return report.findings()
    parts = bodies(file.model)
    known = constants(parts, file.tensor_of)
    for finding in chain(
        _external_findings(file),
        operation_findings(file.model, parts),
        training_findings(file.model, known),
        size_findings(known, limits),
        quantization_findings(known),
        name_findings(file.model, parts),
    ):
        report.add(finding)
    for body in parts:
        _check_values(body, file, report)
    return report.findings()


def _external_findings(file: OnnxFile) -> Iterator[Finding]:
    if file.external_files:
        size = sum(external.size for external in file.external_files.values())
        yield Finding("ONNX-EXT-USED", f"{len(file.external_files)} files of {size} bytes in total")


def _check_values(body: Body, file: OnnxFile, report: FindingLog) -> None:
    for proto in body_tensors(body):
        try:
            is_sparse = isinstance(proto, SparseTensorProto)
            tensor = file.sparse_tensor_of(proto).values if is_sparse else file.tensor_of(proto)
        except EmergraphError:  # reported when the file was read
            continue
        try:
            for finding in value_findings(tensor):
                report.add(finding)
        except EmergraphError as error:
            report.add_error(error)
