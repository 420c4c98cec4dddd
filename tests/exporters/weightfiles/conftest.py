"""Hostile and harmless weight files for the tests beside, and the checks that a refusal must pass."""

import io
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.registry import KINDS
from emergraph.exporters.weightfiles.reader import check_weights, read_weights

MEBIBYTE = 1 << 20
MAX_ALLOCATED = 16 * MEBIBYTE
"""What reading any of the small files here may take; what they claim is gigabytes."""


class Payload:
    """Unpickles to a call; the tests give it one that would leave a marker file."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def zip_bytes(records, *, prefix="archive", compress=()):
    """A zip archive as torch lays it out; `compress` names records to deflate."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records:
            method = zipfile.ZIP_DEFLATED if name in compress else zipfile.ZIP_STORED
            archive.writestr(f"{prefix}/{name}" if prefix else name, content, method)
    return buffer.getvalue()


def torch_zip(data_pkl, storages=None, **options):
    """A torch archive around a handmade data.pkl."""
    records = [("data.pkl", data_pkl), ("byteorder", b"little"), ("version", b"3\n")]
    records += [(f"data/{key}", content) for key, content in (storages or {}).items()]
    return zip_bytes(records, **options)


def text(value):
    """The instruction that pushes a string."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    """The instruction that pushes an integer."""
    length = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)


def numbers(values):
    """The instructions that push a tuple of integers."""
    return b"(" + b"".join(number(value) for value in values) + b"t"


def storage(key="0", count=4, kind="FloatStorage", module="torch"):
    """The instructions that push a storage."""
    global_ = f"c{module}\n{kind}\n".encode()
    return b"(" + text("storage") + global_ + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(shape, strides, *, offset=0, held=None, **options):
    """The instructions that push a tensor rebuilt by _rebuild_tensor_v2."""
    arguments = (held or storage(**options)) + number(offset) + numbers(shape) + numbers(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89ccollections\nOrderedDict\n)RtR"


def state_dict(**tensors):
    """A whole pickle: a dict of names to pushed tensors."""
    body = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02}(" + body + b"u."


def forge_central(data, old, new):
    """Rename a record in the directory of an archive only."""
    start = data.rindex(b"PK\x05\x06")
    offset = struct.unpack("<L", data[start + 16 : start + 20])[0]
    return data[:offset] + data[offset:].replace(old, new)


@pytest.fixture
def save(tmp_path):
    """Write bytes into a folder of their own and return the path."""

    def write(content, name="model.pt") -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def marker(tmp_path):
    """A file that payloads would make; its absence at the end proves that nothing ran."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


@pytest.fixture
def payload(marker):
    """A payload that would make the marker."""
    import os

    return Payload(os.system, f"touch {marker}")


@pytest.fixture
def measured():
    """Run a function under a clock and a count of what it allocates."""

    def run(function, *, seconds=10.0):
        tracemalloc.start()
        start = time.monotonic()
        try:
            return function()
        finally:
            took, peak = time.monotonic() - start, tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert took < seconds
            assert peak < MAX_ALLOCATED

    return run


@pytest.fixture
def refused(save, measured):
    """Check that a file is refused with a finding: error, time, memory, one line, and what `check` says."""

    def check(content, finding_id, *, name="model.pt", seconds=10.0, **options):
        path = content if isinstance(content, Path) else save(content, name)
        before = sorted(path.parent.iterdir())

        def read():
            with pytest.raises(EmergraphError) as caught:
                read_weights(path, **options)
            return caught.value

        error = measured(read, seconds=seconds)
        message = str(error)
        assert message.endswith(f"[{finding_id}]"), message
        assert type(error) is KINDS[finding_id].error
        assert message.isprintable()
        assert message.startswith(f"{path.name}: ")
        assert len(message) < 500
        if not options:
            assert [finding.id for finding in check_weights(path)] == [finding_id]
        assert sorted(path.parent.iterdir()) == before
        return message

    return check


@pytest.fixture
def forge():
    """The functions above."""
    return SimpleNamespace(
        zip_bytes=zip_bytes,
        torch_zip=torch_zip,
        text=text,
        number=number,
        numbers=numbers,
        storage=storage,
        tensor=tensor,
        state_dict=state_dict,
        forge_central=forge_central,
        Payload=Payload,
    )
