"""What torch writes is read bit for bit: types, layouts, nesting; TorchScript and exported programs."""

import argparse
import collections
import datetime as dt
import decimal
import enum
import functools
import io
import json
import pickle
import struct
import types
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emergraph.errors import EmergraphError, UnsafeInputError
from emergraph.exporters.weightfiles.reader import check_weights, read_weights

torch = pytest.importorskip("torch")

DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.complex128),
]
UNTYPED = [
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.uint16, torch.uint32, torch.uint64),
]


def bytes_of(tensor):
    """The values of a torch tensor as little-endian bytes in C order."""
    whole = tensor.detach().contiguous().resolve_conj()
    return bytes(whole.reshape(-1).view(torch.uint8).numpy()) if whole.numel() else b""


def assert_equal(weights, expected):
    assert list(weights.tensors) == list(expected)
    for name, value in expected.items():
        tensor = weights.tensors[name]
        assert tensor.dtype == str(value.dtype).removeprefix("torch.")
        assert tensor.shape == tuple(value.shape)
        assert tensor.array().shape == tuple(value.shape)
        assert bytes(tensor.raw()) == bytes_of(value)
        assert np.ascontiguousarray(tensor.array()).tobytes() == bytes_of(value)


@pytest.fixture
def saved(tmp_path):
    def write(value, name="m.pt", **options):
        path = tmp_path / name
        torch.save(value, path, **options)
        return path

    return write


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_element_type(saved, dtype, zipped):
    raw = torch.randint(0, 255, (6, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    values = raw.view(dtype) if dtype is not torch.bool else raw > 100
    state = {"w": values, "t": values.t(), "s": values[1:3, ::2].clone(), "scalar": values[0, 0].clone()}
    path = saved(state, _use_new_zipfile_serialization=zipped)
    untyped = dtype in UNTYPED and not zipped  # torch writes these and cannot read them back
    assert_equal(read_weights(path), state if untyped else torch.load(path, weights_only=True))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_state_dict_of_a_network(saved, zipped):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, groups=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.LSTM(4, 5, bidirectional=True),
        torch.nn.MultiheadAttention(6, 2),
        torch.nn.Embedding(7, 3),
    )
    path = saved(model.state_dict(), _use_new_zipfile_serialization=zipped)
    weights = read_weights(path)
    assert_equal(weights, torch.load(path, weights_only=True))
    assert weights.format == "state_dict"
    assert not weights.skipped
    assert not weights.findings
    assert check_weights(path) == []


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(saved, protocol):
    state = collections.OrderedDict(a=torch.ones(2, 2), b=torch.nn.Parameter(torch.zeros(3)))
    path = saved(state, pickle_protocol=protocol)
    assert_equal(read_weights(path), state)


def test_zero_copy(saved):
    weights = read_weights(saved({"w": torch.ones(64, 64)}))
    first, again = weights.tensors["w"].array(), weights.tensors["w"].array()
    assert np.shares_memory(first, again)
    assert not first.flags.writeable


def test_the_map_outlives_the_weight_file(saved):
    array = read_weights(saved({"w": torch.arange(1000.0)})).tensors["w"].array()
    assert array.sum() == 499500


def test_checkpoint_with_optimizer_state(saved):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 7,
        "loss": 0.25,
        "note": "best",
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "rng_state": torch.get_rng_state(),
    }
    weights = read_weights(saved(checkpoint))
    assert_equal(weights, model.state_dict())
    assert {"epoch": 7, "loss": 0.25, "note": "best"}.items() <= weights.metadata.items()
    assert weights.metadata["weights under"] == "model_state_dict"
    found = {entry.name: (entry.n_tensors, entry.n_elements) for entry in weights.skipped}
    assert found == {
        "optimizer_state_dict": (6, 18),
        "rng_state": (1, torch.get_rng_state().numel()),
    }


def test_lightning_checkpoint(saved):
    state = {"net.weight": torch.ones(2, 2), "net.bias": torch.ones(2)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(2, 2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    checkpoint = {
        "epoch": 1,
        "pytorch-lightning_version": "2.1.3",
        "state_dict": state,
        "optimizer_states": [optimizer],
        "lr_schedulers": [{"gamma": torch.ones(1)}],
        "hyper_parameters": {"width": 2},
    }
    weights = read_weights(saved(checkpoint))
    assert_equal(weights, state)
    assert weights.metadata["hyper_parameters.width"] == 2
    assert sorted(entry.name for entry in weights.skipped) == ["lr_schedulers", "optimizer_states"]


def test_several_sets_of_weights(saved):
    state = {"model": {"w": torch.ones(1)}, "ema": {"w": torch.zeros(1)}}
    weights = read_weights(saved(state))
    assert list(weights.tensors) == ["model.w", "ema.w"]
    assert [finding.id for finding in weights.findings] == ["WEIGHTS-SEVERAL"]


def test_a_tensor_or_a_list_of_tensors(saved):
    assert_equal(read_weights(saved(torch.ones(2))), {"tensor": torch.ones(2)})
    assert_equal(
        read_weights(saved([torch.ones(2), torch.zeros(1)])), {"0": torch.ones(2), "1": torch.zeros(1)}
    )


def test_names_that_collide(tmp_path, saved, refused):
    path = saved({"a": {"b.c": torch.ones(1)}, "a.b": {"c": torch.ones(1)}})
    refused(path, "WEIGHTS-NAME-TWICE")


class Settings:
    """A class that only this test module has."""

    def __init__(self):
        self.width = 3
        self.parent = self


class Holder:
    def __init__(self):
        self.weight = torch.ones(2)


class Mode(enum.Enum):
    FAST = 1


def test_a_foreign_class_that_weights_need_is_refused_by_name(saved, refused, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = saved({"state_dict": {"w": torch.ones(2)}, "held": Holder()}, "model/m.pt")
    message = refused(path, "PICKLE-FOREIGN")
    assert f"{__name__}.Holder" in message
    assert "--allow-missing-classes" in message
    weights = read_weights(path, allow_missing_classes=True)
    assert sorted(weights.tensors) == ["held.weight", "state_dict.w"]


@pytest.mark.parametrize(
    "value",
    [
        torch.torch_version.TorchVersion("2.1"),
        argparse.Namespace(rate=0.1, path=Path("a/b")),
        types.SimpleNamespace(rate=1),
        Mode.FAST,
        Mode,
        Path("runs/1"),
        dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
        collections.deque([1, 2]),
        decimal.Decimal("1.5"),
        uuid.UUID(int=3),
        torch.nn.Softmax,
        Settings(),
        [{"deep": (Settings(), 1)}],
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_class_that_no_weight_needs_is_read_around(value, legacy, tmp_path):
    """Its name is a note and a warning of `check`; nothing is run and no option is needed."""
    path = tmp_path / "m.pt"
    state = {"state_dict": {"w": torch.ones(2)}, "value": value}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    weights = read_weights(path)
    assert_equal(weights, {"w": torch.ones(2)})
    shown = [entry.reason for entry in weights.skipped]
    assert all("from elsewhere" in reason and "nothing of it was run" in reason for reason in shown)
    named = value if isinstance(value, type) else type(value)
    if not isinstance(value, (list, Path)):
        assert any(named.__name__ in reason for reason in shown)
    assert {finding.id for finding in check_weights(path)} == {"PICKLE-SKIPPED"}


def test_a_module_without_weights_is_read_around_and_one_with_weights_is_not(tmp_path):
    state = {"state_dict": {"w": torch.ones(2)}, "activation": torch.nn.ReLU()}
    torch.save(state, tmp_path / "m.pt")
    assert_equal(read_weights(tmp_path / "m.pt"), {"w": torch.ones(2)})
    torch.save({**state, "activation": torch.nn.PReLU()}, tmp_path / "m.pt")
    with pytest.raises(UnsafeInputError, match="PICKLE-MODULE"):
        read_weights(tmp_path / "m.pt")


@pytest.mark.parametrize(
    "value", [functools.partial(print, 1), functools.partial(Settings), assert_equal, np.random.default_rng]
)
def test_functions_are_never_read_around(value, saved, refused, tmp_path):
    (tmp_path / "model").mkdir()
    path = saved({"state_dict": {"w": torch.ones(2)}, "value": value}, "model/m.pt")
    with pytest.raises(UnsafeInputError, match="would run code"):
        read_weights(path)


def test_classes_without_any_weights_are_no_checkpoint(saved, refused, tmp_path):
    (tmp_path / "model").mkdir()
    refused(saved({"settings": Settings()}, "model/m.pt"), "PICKLE-FOREIGN")


def test_foreign_class_is_read_around(saved, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = saved({"state_dict": {"w": torch.ones(2)}, "settings": Settings()}, "model/m.pt")
    weights = read_weights(path)
    assert_equal(weights, {"w": torch.ones(2)})
    assert [entry.name for entry in weights.skipped] == ["settings"]
    assert "Settings" in weights.skipped[0].reason
    assert weights.metadata["settings.width"] == 3


def test_numpy_in_a_checkpoint(saved):
    state = {"w": torch.ones(1), "best": np.float64(0.5), "steps": np.int64(3), "mean": np.arange(3.0)}
    weights = read_weights(saved(state))
    assert weights.metadata == {"best": 0.5, "steps": 3}
    np.testing.assert_array_equal(weights.tensors["mean"].array(), np.arange(3.0))


@pytest.mark.parametrize("protocol", range(6))
def test_pickle_of_numpy_arrays(tmp_path, protocol):
    state = {
        "c": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "i": np.arange(4, dtype=np.int16),
    }
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(state, protocol))
    weights = read_weights(path)
    assert weights.format == "pickle"
    for name, value in state.items():
        np.testing.assert_array_equal(weights.tensors[name].array(), value)
        assert weights.tensors[name].array().dtype.byteorder in "=<|"


@pytest.mark.parametrize(
    "state", [np.array([{}], object), np.array(["a"]), np.array([np.datetime64(1, "s")])]
)
def test_pickle_of_other_arrays(tmp_path, refused, state):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "m.pkl").write_bytes(pickle.dumps({"a": state}, 2))
    refused(folder / "m.pkl", "PICKLE-VALUE")


def test_legacy_views(saved):
    whole = torch.arange(12.0).reshape(3, 4)
    path = saved({"a": whole, "b": whole.t(), "c": whole[1]}, _use_new_zipfile_serialization=False)
    weights = read_weights(path)
    assert_equal(weights, torch.load(path, weights_only=True))
    assert weights.tensors["b"].view_of == "a"


def test_storages_saved_on_cuda(saved, forge, save):
    pushed = forge.tensor((2, 2), (2, 1)).replace(forge.text("cpu"), forge.text("cuda:0"))
    content = forge.torch_zip(forge.state_dict(w=pushed), {"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert read_weights(save(content)).tensors["w"].array().tolist() == [[1, 2], [3, 4]]


# TorchScript (case 46)


class Scripted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.second = torch.nn.Linear(3, 4)
        self.second.weight = self.first.weight
        self.register_buffer("mean", torch.arange(4.0))

    def forward(self, x):
        return torch.relu(self.first(x) + self.second(x)) - self.mean


@pytest.fixture
def scripted(tmp_path):
    model = torch.jit.trace(Scripted(), torch.ones(1, 3))
    path = tmp_path / "m.jit"
    model.save(str(path))
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_46_torchscript_weights(scripted):
    weights = read_weights(scripted)
    expected = torch.jit.load(str(scripted)).state_dict()
    assert weights.format == "torchscript"
    assert set(weights.tensors) == set(expected)
    for name, value in expected.items():
        assert bytes(weights.tensors[name].raw()) == bytes_of(value)
    assert weights.tensors["second.weight"].alias_of == "first.weight"
    assert {"linear", "relu", "add", "sub"} & set(weights.metadata["operations"])
    assert "TORCHSCRIPT-CODE" in {finding.id for finding in weights.findings}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_46_frozen_torchscript_keeps_its_weights_as_constants(tmp_path):
    model = Scripted().eval()
    frozen = torch.jit.freeze(torch.jit.script(model))
    frozen.save(str(tmp_path / "m.pt"))
    weights = read_weights(tmp_path / "m.pt")
    held = {bytes(tensor.raw()) for tensor in weights.tensors.values()}
    assert bytes_of(model.first.weight) in held or bytes_of(model.first.weight.t()) in held


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_46_torchscript_code_is_not_run(tmp_path, scripted, marker, payload, refused):
    """Foreign code in code/ stays text; a system call in data.pkl is refused."""
    original = zipfile.ZipFile(scripted)
    folder = tmp_path / "model"
    folder.mkdir()
    for name, harmless in [("code/__torch__.py", True), ("data.pkl", False)]:
        path = folder / "m.pt"
        with zipfile.ZipFile(path, "w") as archive:
            for info in original.infolist():
                content = original.read(info)
                if info.filename.endswith(name):
                    text = f"import os\nos.system('touch {marker}')\n".encode()
                    content = text if harmless else pickle.dumps(payload, 2)
                archive.writestr(info.filename, content, zipfile.ZIP_STORED)
        if harmless:
            assert read_weights(path).tensors
        else:
            refused(path, "PICKLE-CODE")


# Exported programs (case 47)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "m.pt2"
    torch.export.save(torch.export.export(Scripted(), (torch.ones(2, 3),)), path)
    return path


def rewritten(source, target, changes):
    """A copy of an archive with some records changed (by the end of their name) or added."""
    original = zipfile.ZipFile(source)
    names = {info.filename for info in original.infolist()}
    with zipfile.ZipFile(target, "w") as archive:
        for info in original.infolist():
            content = original.read(info)
            for end, change in changes.items():
                if info.filename.endswith(end):
                    content = change(content) if callable(change) else change
            archive.writestr(info.filename, content)
        prefix = next(iter(names)).split("/")[0]
        for name, content in changes.items():
            if not any(known.endswith(name) for known in names):
                archive.writestr(f"{prefix}/{name}", content)
    return target


def test_47_exported_program(exported):
    weights = read_weights(exported)
    model = Scripted()
    assert weights.format == "exported_program"
    assert set(weights.tensors) == set(model.state_dict())
    assert weights.tensors["second.weight"].alias_of == "first.weight"
    expected = torch.export.load(exported).state_dict
    for name, value in expected.items():
        assert bytes(weights.tensors[name].raw()) == bytes_of(value)
    graph = weights.programs["models/model.json"]
    targets = [node["target"] for node in graph["graph_module"]["graph"]["nodes"]]
    assert "torch.ops.aten.linear.default" in targets
    assert "PT2-CODE" in {finding.id for finding in weights.findings}


def test_47_sample_inputs_are_never_opened(exported, tmp_path, payload):
    evil = pickle.dumps(payload)
    path = rewritten(exported, tmp_path / "m.pt2", {"data/sample_inputs/model.pt": evil})
    assert read_weights(path).tensors


def test_47_pickled_weights_are_refused(exported, tmp_path, refused, payload):
    folder = tmp_path / "model"
    folder.mkdir()

    def pickled(content):
        table = json.loads(content)
        table["config"]["first.bias"]["use_pickle"] = True
        return json.dumps(table).encode()

    changes = {"model_weights_config.json": pickled, "weights/weight_1": pickle.dumps(payload)}
    refused(rewritten(exported, folder / "m.pt2", changes), "PT2-PICKLE")


def test_47_custom_objects_and_compiled_code_stay_closed(exported, tmp_path, payload):
    changes = {
        "data/constants/custom_obj_0": pickle.dumps(payload),
        "data/aotinductor/model/model.so": b"\x7fELF",
        "extra/evil.pt": pickle.dumps(payload),
    }
    weights = read_weights(rewritten(exported, tmp_path / "m.pt2", changes))
    (finding,) = [finding for finding in weights.findings if finding.id == "PT2-CODE"]
    assert "model.so" in finding.message


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"path_name": "../../m/data/weights/weight_0"}, "TENSOR-STORAGE"),
        ({"path_name": 3}, "PT2-DAMAGED"),
        ({"tensor_meta": None}, "TENSOR-STORAGE"),
        ({"sizes": [{"as_int": 400}, {"as_int": 3}]}, "TENSOR-BOUNDS"),
        ({"sizes": [{"as_expr": "s0"}, {"as_int": 3}]}, "PT2-DAMAGED"),
        ({"sizes": 3}, "PT2-DAMAGED"),
        ({"storage_offset": {"as_int": 1}}, "TENSOR-BOUNDS"),
        ({"strides": [{"as_int": 0}, {"as_int": 0}], "sizes": [{"as_int": 10**6}] * 2}, "TENSOR-EXPANDED"),
        ({"dtype": 99}, "PT2-DAMAGED"),
        ({"layout": 1}, "PT2-DAMAGED"),
    ],
)
def test_47_tables_that_lie(exported, tmp_path, refused, change, finding):
    folder = tmp_path / "model"
    folder.mkdir()

    def changed(content):
        table = json.loads(content)
        entry = table["config"]["first.weight"]
        for key, value in change.items():
            target = entry if key in entry else entry["tensor_meta"]
            target[key] = value
        return json.dumps(table).encode()

    refused(rewritten(exported, folder / "m.pt2", {"model_weights_config.json": changed}), finding)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"config": 3}', b'{"config": {"a": 3}}', b"[" * 100_000]
)
def test_47_tables_that_are_none(exported, tmp_path, refused, content):
    folder = tmp_path / "model"
    folder.mkdir()
    path = rewritten(exported, folder / "m.pt2", {"model_weights_config.json": content})
    refused(path, "PT2-DAMAGED")


def test_47_older_archives(tmp_path, payload):
    """Up to torch 2.7: plain files, weights as torch.save writes them."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", b'{"graph": 1}')
        archive.writestr("serialized_state_dict.pt", buffer.getvalue())
        archive.writestr("serialized_constants.pt", b"")
        archive.writestr("serialized_example_inputs.pt", pickle.dumps(payload))
        archive.writestr("version", b"5.1")
    weights = read_weights(tmp_path / "m.pt2")
    assert_equal(weights, {"w": torch.ones(2)})
    assert weights.programs["serialized_exported_program.json"] == {"graph": 1}


# Properties


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=5),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=5, max_size=5),
    zipped=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_state_dict_comes_back(tmp_path_factory, shapes, dtypes, zipped, seed):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for index, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False)):
        values = torch.randint(0, 100, shape, generator=generator, dtype=torch.float32).to(dtype)
        state[f"t{index}"] = values.transpose(0, -1) if len(shape) > 1 else values
    path = tmp_path_factory.mktemp("any") / "m.pt"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert_equal(read_weights(path), state)


@pytest.fixture(scope="module")
def originals(tmp_path_factory, exported):
    folder = tmp_path_factory.mktemp("originals")
    state = {"w": torch.arange(6.0).reshape(2, 3), "t": torch.ones(3, dtype=torch.float16), "n": {"e": 3}}
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    (folder / "numpy.pkl").write_bytes(pickle.dumps({"a": np.arange(3.0)}))
    np.savez(folder / "plain.npz", a=np.arange(6.0), b=np.ones((2, 2), np.float16))
    np.savez_compressed(folder / "packed.npz", a=np.arange(6.0))
    return [path.read_bytes() for path in sorted(folder.iterdir())] + [exported.read_bytes()]


@settings(max_examples=300, deadline=None)
@given(
    which=st.integers(0, 5),
    place=st.floats(0, 1, exclude_max=True),
    change=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
    allow=st.booleans(),
)
# a backslash where an escape sequence is not one makes Python's decoder warn
@example(which=0, place=0.296875, change=b"\\", cut=False, allow=False)
def test_damaged_files_are_read_or_refused_never_more(
    tmp_path_factory, originals, which, place, change, cut, allow
):
    """Any damage ends in values or in an error of the family, in bounded time."""
    content = originals[which]
    position = int(place * len(content))
    damaged = content[:position] + (b"" if cut else change + content[position + len(change) :])
    path = tmp_path_factory.mktemp("damaged") / "m.pt"
    path.write_bytes(damaged)
    error = None
    try:
        weights = read_weights(path, allow_missing_classes=allow)
        for tensor in weights.tensors.values():
            tensor.array()
            tensor.raw()
    except EmergraphError as caught:
        error = caught
    assert error is None or (error.finding is not None and str(error).isprintable())
