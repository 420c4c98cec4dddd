"""Text fields that are not UTF-8: protobuf hands them out as bytes, which no caller expects."""

from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.names import printable


def text_findings(message: Message) -> Iterator[Finding]:
    """Yield the text fields of a message, and of all messages in it, that are not UTF-8.

    Slow (it looks at everything): called only for files with bytes beyond ASCII where text stands.
    """
    stack = [message]
    while stack:
        for descriptor, value in stack.pop().ListFields():
            values = value if descriptor.is_repeated else (value,)
            if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
                stack.extend(values)
            elif descriptor.type == FieldDescriptor.TYPE_STRING:
                for text in values:
                    if not isinstance(text, str):
                        yield Finding(
                            "ONNX-WIRE-TEXT", f"{descriptor.full_name} is not UTF-8: {printable(text)}"
                        )
