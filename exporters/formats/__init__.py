"""What a file is: one table of formats, decided by magic numbers, structure and, last, the name."""

from emergraph.exporters.formats.format import Format, Inside, Reader
from emergraph.exporters.formats.registry import FORMATS, format_of
from emergraph.exporters.formats.sample import Sample

__all__ = ["FORMATS", "Format", "Inside", "Reader", "Sample", "format_of"]
