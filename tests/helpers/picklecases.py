"""Pickles that would run a program, by protocol, instruction and container; nothing here is ever unpickled.

Each is written byte by byte, since Python's own pickler makes few of them.
"""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

ARGUMENT = b"S'touch /tmp/gotcha'\n"
_NAME = b"cos\nsystem\n"
CALLS = {
    "GLOBAL": _NAME + b".",
    "REDUCE": _NAME + b"(" + ARGUMENT + b"tR.",
    "STACK_GLOBAL": b"\x8c\x02os\x8c\x06system\x93(" + ARGUMENT + b"tR.",
    "STACK_GLOBAL from the memo": b"\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93(" + ARGUMENT + b"tR.",
    "INST": b"(" + ARGUMENT + b"ios\nsystem\n.",
    "OBJ": b"(" + _NAME + ARGUMENT + b"o.",
    "NEWOBJ": _NAME + b"(" + ARGUMENT + b"t\x81.",
    "NEWOBJ_EX": _NAME + b"(" + ARGUMENT + b"t}\x92.",
    "BUILD": b"cos\npopen\n)R}S'x'\nI1\nsb.",
    "BINPERSID": _NAME + b"(" + ARGUMENT + b"tRQ.",
    "PERSID": b"Pkey\n0" + _NAME + b"(" + ARGUMENT + b"tR.",
    "EXT1": b"\x82\x01(" + ARGUMENT + b"tR.",
    "EXT2": b"\x83\x01\x00(" + ARGUMENT + b"tR.",
    "EXT4": b"\x84\x01\x00\x00\x00(" + ARGUMENT + b"tR.",
    "in a dict": b"(dS'a'\n" + _NAME + b"(" + ARGUMENT + b"tRs.",
    "after long text": b"S'" + b"a" * 200_000 + b"'\n0" + _NAME + b"(" + ARGUMENT + b"tR.",
}
"""What imports and calls, by the instruction that does."""
PROTOCOLS = {
    "none": lambda body: body,
    **{f"{number}": lambda body, n=number: bytes([0x80, n]) + body for number in range(2, 6)},
    "4, framed": lambda body: b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body,
    "5, framed": lambda body: b"\x80\x05\x95" + struct.pack("<Q", len(body)) + body,
}
"""What stands before it: protocols 0 and 1 say nothing."""


def zipped(records: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def tarred(records: dict[str, bytes]) -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in records.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def object_array(evil: bytes) -> bytes:
    """A numpy array of objects: a header, then a pickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    content = buffer.getvalue()
    return content[: content.index(b"\n") + 1] + evil


def torch_zip(pickled: bytes, extra: dict[str, bytes] | None = None) -> bytes:
    """What torch.save writes, around any pickle."""
    records = {"archive/data.pkl": pickled, "archive/version": b"3\n", **(extra or {})}
    return zipped(records)


def safetensors() -> bytes:
    """A file of one tensor."""
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    return struct.pack("<Q", len(header)) + header + bytes(8)


def wrong_checksum(content: bytes) -> bytes:
    """A zip archive whose records all have another checksum than is declared."""
    changed = bytearray(content)
    for sign, at in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        position = content.find(sign)
        while position >= 0:
            changed[position + at] ^= 0xFF
            position = content.find(sign, position + 1)
    return bytes(changed)


def flagged(content: bytes, flag: int) -> bytes:
    """A zip archive whose records say that they are encrypted, or the like, and are not."""
    changed = bytearray(content)
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = content.find(sign)
        while position >= 0:
            changed[position + at] |= flag
            position = content.find(sign, position + 1)
    return bytes(changed)


_PLAIN = pickle.dumps({"a": 1}, 2)
_PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)

Container = Callable[[bytes], bytes]
CONTAINERS: dict[str, tuple[str, Container]] = {
    **{
        f"as {suffix}": (f"model{suffix}", lambda evil: evil)
        for suffix in (".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib", ".npy", ".npz", "")
    },
    "as an image": ("cat.png", lambda evil: evil),
    "as safetensors": ("model.safetensors", lambda evil: evil),
    "as onnx": ("model.onnx", lambda evil: evil),
    "as text": ("notes.txt", lambda evil: evil),
    "second pickle": ("model.pkl", lambda evil: _PLAIN + evil),
    "third pickle": ("model.pkl", lambda evil: _PLAIN + _PLAIN + evil),
    "before junk": ("model.pkl", lambda evil: evil + b"\xff" * 100),
    "cut off": ("model.pkl", lambda evil: evil[:-1]),
    "broken afterwards": ("model.pkl", lambda evil: evil[:-1] + b"\xff\xfe"),
    "array of objects": ("array.npy", object_array),
    "in npz": ("arrays.npz", lambda evil: zipped({"a.npy": object_array(evil)})),
    "in npz, packed": (
        "arrays.npz",
        lambda evil: zipped({"a.npy": object_array(evil)}, compression=zipfile.ZIP_DEFLATED),
    ),
    "beside arrays in npz": ("arrays.npz", lambda evil: zipped({"a.npy": _NUMBERS, "b.pkl": evil})),
    "torch": ("model.pt", torch_zip),
    "torch, extra record": ("model.pt", lambda evil: torch_zip(_PLAIN, {"archive/more.pkl": evil})),
    "torch, extra without a name of its own": (
        "model.pt",
        lambda evil: torch_zip(_PLAIN, {"archive/x": evil}),
    ),
    "torch, as values": ("model.pt", lambda evil: torch_zip(_PLAIN, {"archive/data/0": evil})),
    "torch, wrong checksum": ("model.pt", lambda evil: wrong_checksum(torch_zip(evil))),
    "torch, cut off": ("model.pt", lambda evil: torch_zip(evil)[:-60]),
    "torch, flags": ("model.pt", lambda evil: flagged(torch_zip(evil), 1)),
    "torch, more flags": ("model.pt", lambda evil: flagged(torch_zip(evil), 0x60)),
    "zip of anything": ("model.zip", lambda evil: zipped({"model.dat": evil, "readme.txt": b"hello"})),
    "zip, packed": ("model.zip", lambda evil: zipped({"m.pkl": evil}, compression=zipfile.ZIP_DEFLATED)),
    "zip in zip in zip": ("m.zip", lambda evil: zipped({"a.zip": zipped({"b.zip": zipped({"c": evil})})})),
    "tar": ("model.tar", lambda evil: tarred({"model.pkl": evil})),
    "tar, older torch": ("model.pt", lambda evil: tarred({"sys_info": _PLAIN, "pickle": evil})),
    "tar, packed": ("model.tar.gz", lambda evil: gzip.compress(tarred({"a": b"1", "model.pkl": evil}))),
    "gzip": ("model.pkl.gz", gzip.compress),
    "gzip, two members": ("model.pkl.gz", lambda evil: gzip.compress(b"") + gzip.compress(evil)),
    "gzip, cut off": ("model.pkl.gz", lambda evil: gzip.compress(evil)[:-8]),
    "bzip2": ("model.pkl.bz2", bz2.compress),
    "xz": ("model.pkl.xz", lzma.compress),
    "zlib": ("model.joblib", zlib.compress),
    "zip behind an image": ("cat.png", lambda evil: _PNG + zipped({"m.pkl": evil})),
    "zip behind safetensors": ("m.safetensors", lambda evil: safetensors() + zipped({"m.pkl": evil})),
    "zip behind junk": ("model.pt", lambda evil: b"\xff" * 5_000 + torch_zip(evil)),
}
"""What a pickle is put into, with the name of the file."""


def _numbers() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


_NUMBERS = _numbers()
BURIED: dict[str, tuple[str, Container]] = {
    "behind junk": ("model.bin", lambda evil: b"\xff\x00" * 50 + evil),
    "behind an image": ("cat.png", lambda evil: _PNG + evil),
    "as an animation": ("cat.gif", lambda evil: b"GIF89a" + bytes(3) + b"0" + evil),
    "in a tar, behind values": ("m.tar", lambda evil: tarred({"storages": _PLAIN + bytes(999) + evil})),
    "behind values": ("model.pkl", lambda evil: _PLAIN + b"\xff" * 1_000 + evil),
}
"""Containers in which nothing but the bytes themselves says where a pickle begins."""
