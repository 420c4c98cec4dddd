"""GGUF files written byte by byte, right and wrong ones."""

import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_FORMS = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "B",
    U64: "Q",
    I64: "q",
    F64: "d",
}


def text(value):
    """A string as GGUF stores it."""
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, found):
    """A value of metadata behind its type; an array is (type, values)."""
    if kind == STRING:
        return text(found)
    if kind == ARRAY:
        inner, items = found
        return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, item) for item in items)
    return struct.pack("<" + _FORMS[kind], found)


def entry(key, kind, found):
    """A key of the metadata with its value; bytes stand for a value as it is in the file."""
    raw = found if isinstance(found, bytes) and kind != STRING else value(kind, found)
    return text(key) + struct.pack("<I", kind) + raw


def info(name, dims, kind=0, offset=0, *, n_dims=None):
    """What the header says about a tensor."""
    count = len(dims) if n_dims is None else n_dims
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", count, *dims, kind, offset)


def file(
    entries=(), infos=(), data=b"", *, version=3, n_tensors=None, n_entries=None, align=32, magic=b"GGUF"
):
    """A whole file: header, padding, values."""
    head = magic + struct.pack(
        "<IQQ",
        version,
        len(infos) if n_tensors is None else n_tensors,
        len(entries) if n_entries is None else n_entries,
    )
    head += b"".join(entries) + b"".join(infos)
    return head + bytes(-len(head) % align) + data


def plain(values, *, name="fc.weight", entries=(), **options):
    """A file with one float32 matrix of two columns."""
    data = struct.pack(f"<{len(values)}f", *values)
    return file(entries, [info(name, (2, len(values) // 2))], data, **options)
