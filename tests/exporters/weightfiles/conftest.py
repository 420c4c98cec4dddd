"""Hostile and harmless weight files for the tests beside, and the checks that a refusal must pass."""

import hashlib
import io
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.findings import KINDS
from emergraph.exporters.weightfiles.reader import check_weights, read_weights
from emergraph.exporters.weightfiles.wiring import Wire, export_weights
from emergraph.graphstore.records import EdgeKind
from emergraph.graphstore.restore import restore_all
from emergraph.graphstore.tensors import element_type

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


class Recorder:
    """A sink that keeps everything and breaks nothing that the contract promises."""

    def __init__(self):
        self.blocks, self.matrices, self.edges = {}, {}, {}
        self.layers, self.units, self.tensors, self.operations = [], [], {}, []

    def write_matrix(self, block, src_units, dst_units, weights, kernels=None, place=None):
        assert block.id == len(self.blocks)
        assert weights.shape == (src_units.size, dst_units.size)
        self.blocks[block.id] = block
        self.matrices[block.id] = (src_units, dst_units, np.array(weights), kernels)
        shown = weights if kernels is None else kernels.n_params
        rows, columns = np.nonzero(shown)
        weight = np.asarray(weights)[rows, columns]
        l1 = np.abs(weight) if kernels is None else kernels.l1[rows, columns]
        self.edges[block.id] = (src_units[rows], dst_units[columns], weight, l1)
        return rows.size

    def write_edges(self, block, src, dst, weight=None, kernels=None):
        assert block.id == len(self.blocks)
        assert src.shape == dst.shape
        assert len(set(zip(src.tolist(), dst.tolist(), strict=True))) == src.size
        self.blocks[block.id] = block
        l1 = np.abs(weight) if kernels is None and weight is not None else kernels.l1 if kernels else None
        self.edges[block.id] = (src, dst, weight, l1)
        return src.size

    def write_layers(self, layers):
        self.layers = list(layers)

    def write_units(self, columns):
        self.units = list(columns)

    def write_tensor(self, tensor):
        assert tensor.name not in self.tensors
        assert (tensor.data is None) != (tensor.block is None)
        self.tensors[tensor.name] = tensor

    def write_operations(self, operations):
        self.operations = list(operations)

    def layer(self, name):
        return next(layer for layer in self.layers if layer.name == name)

    def columns(self, name):
        return self.units[self.layer(name).id]

    def into(self, name, kind=EdgeKind.WEIGHT):
        """(src, dst, weight) of all edges of a kind into a layer, counted from the layer's first unit."""
        layer = self.layer(name)
        chosen = [id_ for id_, block in self.blocks.items() if block.layer == layer.id and block.kind is kind]
        parts = [self.edges[id_] for id_ in chosen]
        src = np.concatenate([part[0] for part in parts])
        dst = np.concatenate([part[1] for part in parts]) - layer.first_unit
        return src, dst, None if parts[0][2] is None else np.concatenate([part[2] for part in parts])

    def dense(self, name, source, kind=EdgeKind.WEIGHT):
        """The edges from one layer into another as a matrix (n_src, n_dst)."""
        src, dst, weight = self.into(name, kind)
        first, count = self.layer(source).first_unit, self.layer(source).n_units
        inside = (src >= first) & (src < first + count)
        matrix = np.zeros((count, self.layer(name).n_units))
        matrix[src[inside] - first, dst[inside]] = weight[inside]
        return matrix

    def restored(self, name):
        """The bytes of a tensor, from its data or from the matrix of its block."""
        tensor = self.tensors[name]
        if tensor.data is not None:
            return bytes(tensor.data)
        _, _, weights, kernels = self.matrices[tensor.block]
        assert kernels is None
        values = weights.T if tensor.block_transposed else weights
        assert values.shape == tensor.shape
        stored = np.ascontiguousarray(values.astype(np.float32))
        raw = stored.astype(element_type(tensor.dtype)).tobytes()
        assert hashlib.sha256(raw).hexdigest() == tensor.sha256
        return raw


def check_contract(sink):
    """What records.py promises of a graph."""
    first = 0
    for index, layer in enumerate(sink.layers):
        assert layer.id == index
        assert layer.first_unit == first
        first += layer.n_units
    assert len({layer.name for layer in sink.layers}) == len(sink.layers)
    owner = np.repeat([layer.id for layer in sink.layers], [layer.n_units for layer in sink.layers])
    for id_, (src, dst, *_) in sink.edges.items():
        block = sink.blocks[id_]
        assert set(owner[dst]) <= {block.layer}
        if block.kind not in {EdgeKind.RECURRENT, EdgeKind.NORM}:
            assert np.all(owner[src] < owner[dst])
        assert len(set(zip(src.tolist(), dst.tolist(), strict=True))) == src.size
    assert [columns.layer for columns in sink.units] == [layer.id for layer in sink.layers]


@pytest.fixture
def wired(tmp_path):
    """Save a state dict (or a module's), read it, wire it."""

    def run(state, wire=Wire.NONE):
        path = tmp_path / "m.pt"
        torch = pytest.importorskip("torch")
        torch.save(state.state_dict() if hasattr(state, "state_dict") else state, path)
        weights = read_weights(path)
        sink = Recorder()
        summary = export_weights(weights, sink, wire=wire)
        check_contract(sink)
        for name, tensor in weights.tensors.items():
            if tensor.alias_of is None:
                assert sink.restored(name) == np.ascontiguousarray(tensor.array()).tobytes()
        assert set(sink.tensors) == {n for n, t in weights.tensors.items() if t.alias_of is None}
        assert summary.n_edges == sum(part[0].size for part in sink.edges.values())
        return sink, summary

    return run


def assert_restored(reader, weights):
    """Every tensor of the store equals the file's, bit for bit; tied ones are there once."""
    restored = dict(restore_all(reader))
    assert set(restored) == {name for name, tensor in weights.tensors.items() if tensor.alias_of is None}
    for name, values in restored.items():
        expected = weights.tensors[name].array()
        assert (values.dtype, values.shape) == (expected.dtype, expected.shape)
        assert values.tobytes() == expected.tobytes()


def array(tensor):
    """The values of a torch tensor as float64."""
    return tensor.detach().numpy().astype(np.float64)


def paths(sink):
    """Sum over all paths from the first to the last layer of the product of the edges' l1."""
    owner = np.repeat([layer.id for layer in sink.layers], [layer.n_units for layer in sink.layers])
    total = np.zeros(owner.size)
    total[owner == sink.layers[-1].id] = 1
    for layer in sink.layers[::-1]:
        for id_, block in sink.blocks.items():
            if block.layer == layer.id:
                src, dst, _, l1 = sink.edges[id_]
                np.add.at(total, src, l1 * total[dst])
    return total[owner == 0].sum()


@pytest.fixture(scope="session")
def wiring():
    """The helpers above for graphs of weight files."""
    return SimpleNamespace(
        Recorder=Recorder,
        check_contract=check_contract,
        assert_restored=assert_restored,
        array=array,
        paths=paths,
    )
