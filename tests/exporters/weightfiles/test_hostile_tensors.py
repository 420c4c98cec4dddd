"""Cases 41 to 43: tensors that reach beyond their storage, repeat it, share it, or have no plain values."""

import io

import numpy as np
import pytest

from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.reader import check_weights, read_weights

torch = pytest.importorskip("torch")


@pytest.fixture
def saved(save):
    """Save an object with torch and return the path."""

    def write(value, **options):
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        return save(buffer.getvalue())

    return write


def test_41_expanded_tensor(refused, forge, tmp_path):
    """1e10 elements out of a file of under 2 kB."""
    path = tmp_path / "model" / "big.pt"
    path.parent.mkdir()
    torch.save({"w": torch.ones(1).expand(100_000, 100_000)}, path)
    assert path.stat().st_size < 2_000
    refused(path, "TENSOR-EXPANDED")
    content = forge.state_dict(w=forge.tensor((100_000, 100_000), (0, 0)))
    refused(forge.torch_zip(content, {"0": bytes(16)}), "TENSOR-EXPANDED")


def test_41_many_large_views_of_one_storage(refused, forge):
    """Every view is inside, together they are a thousand times the file."""
    views = {f"w{i}": forge.tensor((1 << 16,), (1,), offset=i, count=(1 << 16) + 1000) for i in range(1000)}
    refused(
        forge.torch_zip(forge.state_dict(**views), {"0": bytes(((1 << 16) + 1000) * 4)}), "TENSOR-EXPANDED"
    )


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 2), (2, 1), 1),
        ((5,), (1,), 0),
        ((2,), (4,), 0),
        ((1,), (1,), 4),
        ((1,), (1,), 1 << 62),
        ((2,), (1 << 62,), 0),
        ((2, 2), (-2, 1), 2),
        ((2, 2), (2, 1), -1),
        ((2, 2), (2,), 0),
    ],
)
def test_42_beyond_the_storage(refused, forge, shape, strides, offset):
    content = forge.state_dict(w=forge.tensor(shape, strides, offset=offset))
    refused(forge.torch_zip(content, {"0": bytes(16)}), "TENSOR-BOUNDS")


@pytest.mark.parametrize("shape", [(-1, 4), (1 << 62, 4), (0, 1 << 62), (1,) * 40])
def test_42_impossible_shapes(refused, forge, shape):
    content = forge.state_dict(w=forge.tensor(shape, (1,) * len(shape)))
    refused(forge.torch_zip(content, {"0": bytes(16)}), "TENSOR-SHAPE")


def test_42_storage_shorter_or_missing(refused, forge):
    content = forge.state_dict(w=forge.tensor((2, 2), (2, 1)))
    refused(forge.torch_zip(content, {"0": bytes(15)}), "TENSOR-STORAGE")
    refused(forge.torch_zip(content), "TENSOR-STORAGE")


def test_42_storage_declared_twice_with_different_sizes(refused, forge):
    content = forge.state_dict(a=forge.tensor((4,), (1,)), b=forge.tensor((2,), (1,), count=2))
    refused(forge.torch_zip(content, {"0": bytes(16)}), "TENSOR-STORAGE")


def test_42_storage_longer_is_said(save, forge):
    content = forge.torch_zip(forge.state_dict(w=forge.tensor((2, 2), (2, 1))), {"0": bytes(20)})
    assert [finding.id for finding in check_weights(save(content))] == ["STORAGE-LONGER"]


@pytest.mark.parametrize(
    "pushed",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"ctorch._utils\n_rebuild_parameter\n(K\x01\x88NtR",
        b"ctorch\nSize\n(U\x01atR",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00utf-7tR",
        b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R",
        b"ccollections\nOrderedDict\n]](]Nea\x85R",
        b"N\x85Q",
        b"(U\x07storageU\x01aU\x010U\x03cpuK\x01tQ",
    ],
)
def test_42_values_of_the_wrong_kind(refused, forge, pushed):
    refused(forge.torch_zip(forge.state_dict(w=pushed)), "PICKLE-VALUE")


def test_43_tied_weights_are_one_tensor(saved):
    layer = torch.nn.Linear(4, 3)
    path = saved({"a": layer.weight, "b": layer.weight, "c": layer.bias})
    weights = read_weights(path)
    assert [tensor.alias_of for tensor in weights.tensors.values()] == [None, "a", None]
    assert weights.n_parameters == 15
    assert [finding.id for finding in weights.findings] == ["TENSOR-ALIAS"]


def test_43_views_are_said(saved):
    whole = torch.arange(24.0).reshape(6, 4)
    views = {
        "whole": whole,
        "t": whole.T,
        "rows": whole[2:4],
        "flat": whole.reshape(24),
        "own": torch.ones(2),
    }
    weights = read_weights(saved(views))
    found = {name: (tensor.view_of, tensor.view) for name, tensor in weights.tensors.items()}
    assert found == {
        "whole": (None, None),
        "t": ("whole", "transposed"),
        "rows": ("whole", "a slice"),
        "flat": ("whole", "reshaped"),
        "own": (None, None),
    }
    for name, value in views.items():
        np.testing.assert_array_equal(weights.tensors[name].array(), value.numpy())


def test_43_packed_slices_do_not_overlap(saved):
    """Query, key and value as slices of one storage are tensors of their own."""
    packed = torch.arange(36.0).reshape(12, 3)
    weights = read_weights(saved({"q": packed[:4], "k": packed[4:8], "v": packed[8:]}))
    assert all(tensor.alias_of is None and tensor.view_of is None for tensor in weights.tensors.values())
    assert not weights.findings


def test_43_meta_tensors_have_no_data(saved):
    weights = read_weights(saved({"m": torch.empty(3, 4, device="meta"), "w": torch.ones(2)}))
    assert list(weights.tensors) == ["w"]
    assert [(entry.name, entry.n_elements) for entry in weights.skipped] == [("m", 12)]
    assert [finding.id for finding in weights.findings] == ["TENSOR-NO-DATA"]


def test_43_only_meta_tensors(refused, tmp_path):
    path = tmp_path / "model" / "m.pt"
    path.parent.mkdir()
    torch.save({"m": torch.empty(3, device="meta")}, path)
    refused(path, "WEIGHTS-NONE")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_43_sparse(saved, layout):
    dense = torch.tensor([[0.0, 2.0, 0.0], [1.5, 0.0, -3.0]])
    sparse = {"coo": dense.to_sparse, "csr": dense.to_sparse_csr, "csc": dense.to_sparse_csc}[layout]()
    tensor = read_weights(saved({"w": sparse})).tensors["w"]
    np.testing.assert_array_equal(tensor.array(), dense.numpy())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_43_sparse_entries_that_repeat_are_added(saved):
    sparse = torch.sparse_coo_tensor(torch.tensor([[0, 0, 1]]), torch.tensor([1.0, 2.0, 4.0]), (3,))
    assert read_weights(saved({"w": sparse})).tensors["w"].array().tolist() == [3.0, 4.0, 0.0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_43_huge_sparse_is_left_out(saved):
    sparse = torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (1 << 20, 1 << 20))
    weights = read_weights(saved({"w": sparse, "b": torch.ones(1)}))
    assert list(weights.tensors) == ["b"]
    assert "limit" in weights.skipped[0].reason


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_43_sparse_index_out_of_bounds(refused, tmp_path):
    path = tmp_path / "model" / "m.pt"
    path.parent.mkdir()
    indices = torch.tensor([[5]])
    sparse = torch.sparse_coo_tensor(indices, torch.ones(1), (9,))
    torch.save({"w": sparse}, path)
    content = path.read_bytes()
    shape = b"ctorch\nSize\n"
    assert shape in content
    start = content.index(b"K\x09\x85", content.index(shape))
    damaged = content[:start] + b"K\x03\x85" + content[start + 3 :]
    from emergraph.errors import EmergraphError

    path.write_bytes(damaged)
    with pytest.raises(EmergraphError):
        read_weights(path)


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*", "ignore::UserWarning")
def test_43_quantized(saved):
    values = torch.tensor([[0.5, -1.0], [2.0, 4.0]])
    per_tensor = torch.quantize_per_tensor(values, 0.5, 3, torch.quint8)
    scales, zeros = torch.tensor([0.5, 1.0]), torch.tensor([0, 2])
    per_channel = torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)
    weights = read_weights(saved({"t": per_tensor, "c": per_channel}))
    t, c = weights.tensors["t"], weights.tensors["c"]
    assert (t.dtype, t.quantization.scale, t.quantization.zero_point) == ("uint8", (0.5,), (3.0,))
    assert (c.quantization.scale, c.quantization.zero_point, c.quantization.axis) == (
        (0.5, 1.0),
        (0.0, 2.0),
        0,
    )
    np.testing.assert_array_equal(t.array(), per_tensor.int_repr().numpy())
    np.testing.assert_array_equal((t.array() - 3.0) * 0.5, per_tensor.dequantize().numpy())
    np.testing.assert_array_equal(c.array(), per_channel.int_repr().numpy())


def test_43_complex_and_conjugate(saved):
    values = torch.tensor([1 + 2j, 3 - 1j])
    weights = read_weights(saved({"z": values, "conj": values.clone().conj()}))
    np.testing.assert_array_equal(weights.tensors["z"].array(), values.numpy())
    assert [entry.name for entry in weights.skipped] == ["conj"]


def test_43_empty_tensors(saved):
    weights = read_weights(saved({"e": torch.empty(0, 1 << 40), "w": torch.ones(1)}))
    assert weights.tensors["e"].array().shape == (0, 1 << 40)
    assert [finding.id for finding in weights.findings] == ["TENSOR-EMPTY"]
    assert bytes(weights.tensors["e"].raw()) == b""


def test_too_many_tensors(refused, forge):
    many = {f"w{i}": forge.tensor((1,), (1,)) for i in range(30)}
    content = forge.torch_zip(forge.state_dict(**many), {"0": bytes(16)})
    refused(content, "WEIGHTS-LIMIT", limits=WeightLimits(tensors=20))


def test_nonfinite_values_and_hidden_names_are_found(saved):
    path = saved({"a\x1b[2J": torch.tensor([float("nan"), float("inf"), 1.0]), "b": torch.ones(2)})
    found = check_weights(path)
    assert [finding.id for finding in found] == ["TENSOR-NAME", "TENSOR-NONFINITE"]
    assert found[1].message.startswith("2 of 3 values")
    assert all(finding.line().isprintable() for finding in found)
