"""Findings about weight files, and the errors that refusals become."""

from emergraph.exporters.onnxfile.findings import Finding, Severity, finding_of, refusal
from emergraph.exporters.weightfiles.registry import WEIGHT_KINDS

__all__ = ["WEIGHT_KINDS", "Finding", "Severity", "finding_of", "refusal"]
