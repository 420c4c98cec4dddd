"""Weights computed a part at a time are those that are computed as a whole."""

import numpy as np
import pytest

from emergraph.exporters.codings import DEQUANTIZE, TURN, decoded
from emergraph.exporters.filetensors import place_in
from emergraph.exporters.runtime.quantization import dequantize
from emergraph.exporters.weightfiles.gguf.elements import BLOCKS, GGML, Blocks
from emergraph.exporters.weightfiles.recipes import Recipe, values_of
from emergraph.graphstore.inplace import Matrix, mask_times
from emergraph.graphstore.modelfiles import Coding, WantedTensor, coding_of

TYPES = [kind for kind in BLOCKS.values() if kind.decoded]
RNG = np.random.default_rng(0)


class Files:
    """Tensors of a file that is none."""

    def __init__(self, **tensors):
        self.tensors = tensors

    def leaf(self, name):
        values = self.tensors[name]
        return WantedTensor(name=name, dtype=values.dtype.name, shape=values.shape, sha256="")

    def read(self, wanted):
        return self.tensors[wanted.name]


def parts_agree(made, expected):
    """All ways to ask for a part of it give what the whole has there, bit for bit, and so do its zeros."""
    flat = expected.reshape(made.entries.shape)
    assert made.shape == expected.shape
    assert made.array().tobytes() == np.ascontiguousarray(expected).tobytes()
    n_rows, n_columns = flat.shape
    some = RNG.permutation(n_rows)[: max(1, n_rows // 2)]
    others = np.sort(RNG.permutation(n_columns)[: max(1, n_columns // 3)])
    for rows in (slice(0, n_rows), slice(1 % n_rows, n_rows, 2), some):
        for columns in (slice(0, n_columns), slice(n_columns // 3, n_columns // 3 + 1), others):
            wanted = flat[rows][:, columns]
            assert np.array_equal(made.entries.part(rows, columns), wanted, equal_nan=True)
            assert np.array_equal(made.entries.mask(rows, columns), wanted != 0)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("wild", [False, True])
def test_blocks_of_ggml(kind, wild):
    """Of random bytes, whose scales may be anything; and of zeros and small codes."""
    codes = RNG.integers(0, 256 if wild else 2, (5, 3 * kind.n_bytes), np.uint8)
    if not wild:
        codes[0] = 0
    files = Files(codes=codes)
    expected = Blocks(kind, (5, 3 * kind.values), lambda: codes).floats()
    parts_agree(decoded(Coding(GGML, (kind.name,), (files.leaf("codes"),)), files.read), expected)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_zeros_are_told_by_codes_alone(kind, monkeypatch):
    """Where scales are numbers; where one is none, a code of zero may be an edge."""
    block = next(one for one in TYPES if one.name == kind)
    codes = RNG.integers(0, 256, (4, 2, block.n_bytes), np.uint8)
    codes[:, :, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    codes[1, 1, :2] = 0
    expected = Blocks(block, (4, 2 * block.values), lambda: codes.reshape(4, -1)).floats() != 0
    files = Files(codes=codes.reshape(4, -1))
    made = decoded(Coding(GGML, (kind,), (files.leaf("codes"),)), files.read).entries
    monkeypatch.setattr("emergraph.exporters.codings.unpacked", lambda *_: pytest.fail("it was unpacked"))
    assert np.array_equal(made.mask(slice(0, 4), slice(0, 2 * block.values)), expected)
    assert 0 < expected.sum() < expected.size


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1, 1), (3, 4, 5), (1, 7)])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_codes_less_a_zero_point_times_a_scale(axis, shape, dtype):
    if axis is not None and axis >= len(shape):
        return
    n = 1 if axis is None else shape[axis]
    codes = RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    zero = RNG.integers(0, 9, () if axis is None else n).astype(dtype)
    scale = RNG.random(() if axis is None else n).astype(np.float32)
    files = Files(codes=codes, scale=scale, zero=zero)
    for given, names in (("sz", ("scale", "zero")), ("s", ("scale",)), ("z", ("zero",)), ("", ())):
        leaves = tuple(map(files.leaf, ("codes", *names)))
        beside = {name: files.tensors[name] for name in names}
        expected = dequantize(codes, beside.get("scale"), beside.get("zero"), axis=axis or 0)
        parts_agree(decoded(Coding(DEQUANTIZE, (axis or 0, given), leaves), files.read), expected)


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf, 1e-45])
def test_a_scale_that_makes_something_else_of_a_code_is_looked_at(scale):
    codes = np.array([[0, 1, 2, -3]], np.int8)
    files = Files(codes=codes, scale=np.array([scale], np.float32))
    made = decoded(Coding(DEQUANTIZE, (0, "s"), (files.leaf("codes"), files.leaf("scale"))), files.read)
    with np.errstate(invalid="ignore"):
        parts_agree(made, dequantize(codes, files.tensors["scale"]))


class Plain:
    """A parameter that is as it is stored."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def floats(self):
        return self.values


@pytest.mark.parametrize(
    ("made", "shapes"),
    [
        (Recipe("rotary", ("a",), (2,)), [(12, 5)]),
        (Recipe("head_blocks", ("a",), (2,)), [(12, 5)]),
        (Recipe("stack", ("a", "b"), (0,)), [(4, 5), (4, 5)]),
        (Recipe("stack", ("a", "b"), (1,)), [(4, 5), (4, 5)]),
        (
            Recipe("join", (Recipe("expand", ("a",), (0,)), Recipe("expand", ("b",), (0,))), (0,)),
            [(4, 5)] * 2,
        ),
        (Recipe("join", ("a", "b"), (1,)), [(3, 4, 5), (3, 2, 5)]),
        (Recipe(TURN, (Recipe("rotary", ("a",), (2,)),)), [(8, 3)]),
        (Recipe("rotary", (Recipe(TURN, ("a",)),), (1,)), [(3, 8)]),
    ],
)
def test_rows_are_moved_as_recipes_move_them(made, shapes):
    tensors = {
        name: RNG.normal(size=shape).astype(np.float32) for name, shape in zip("ab", shapes, strict=False)
    }
    files = Files(**tensors)
    expected = values_of(made, {name: Plain(values) for name, values in tensors.items()})

    def coding(one):
        return (
            files.leaf(one)
            if isinstance(one, str)
            else Coding(one.op, one.args, tuple(map(coding, one.parts)))
        )

    parts_agree(decoded(coding(made), files.read), expected)


def test_a_matrix_of_codes_is_cut_as_its_tensor_is():
    """Views of the tensor, passes over them, and a few rows and columns of them."""
    codes = RNG.integers(0, 255, (8, 2 * 34), np.uint8)
    codes.reshape(8, 2, 34)[:, :, :2] = np.frombuffer(np.float16(0.25).tobytes(), np.uint8)
    files = Files(codes=codes)
    made = decoded(Coding(GGML, ("Q8_0",), (files.leaf("codes"),)), files.read)
    whole = made.array()
    whole[:, 3] *= 1
    for view in (whole, whole.T, whole[2:5], whole[:, 32:].T, whole[1::2, ::3], whole[4:5], whole[:, 5:6]):
        matrix = Matrix.of(made.entries, place_in(whole, "w", view), view.shape)
        assert matrix.shape == view.shape
        assert np.array_equal(matrix.array(), view)
        vectors = RNG.integers(0, 9, (view.shape[1], 2)).astype(np.float64)
        assert np.array_equal(mask_times(matrix, vectors), (view != 0) @ vectors)
        rows, columns = (np.sort(RNG.permutation(n)[: max(1, n // 2)]) for n in view.shape)
        assert np.array_equal(matrix.select(rows, columns).array(), view[rows][:, columns])
    slanted = np.lib.stride_tricks.as_strided(whole, (3, 3), (65 * 4, 4 * 63))
    with pytest.raises(ValueError, match="not in rows and columns"):
        Matrix.of(made.entries, place_in(whole, "w", slanted), (3, 3))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"op": 3, "args": [], "parts": []}',
        '{"op": "ggml", "args": ["Q8_0"], "parts": [{"tensor": "none"}]}',
        '{"tensor": "codes"}',
        '{"op": "x"}',
        '{"op": "ggml", "args": [[1]], "parts": []}',
        '{"op": "ggml", "args": [], "parts": [{"tensor": "a", "dtype": 1, "shape": [1], "sha256": ""}]}',
        '{"op": "ggml", "args": [], "parts": [{"tensor": "a", "dtype": "", "shape": [-1], "sha256": ""}]}',
        '{"op": "stack", "args": [], "parts": [' * 30 + "]}" * 30,
        '{"op": "stack", "args": [], "parts": [' * 3000 + "]}" * 3000,
    ],
)
def test_a_coding_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="coding"):
        coding_of(text, {"codes": WantedTensor(name="codes", dtype="uint8", shape=(1, 34), sha256="")})


@pytest.mark.parametrize(
    ("op", "args", "names"),
    [
        ("gguf", (), ("codes",)),
        (GGML, ("Q9_9",), ("codes",)),
        (GGML, ("Q8_1",), ("codes",)),
        (GGML, (), ("codes",)),
        (GGML, ("Q8_0",), ()),
        (GGML, ("Q8_0",), ("few",)),
        (GGML, ("Q8_0",), ("plain",)),
        (DEQUANTIZE, (0, "sz"), ("codes", "few")),
        (DEQUANTIZE, (0, "s"), ("codes", "few")),
        (DEQUANTIZE, ("a", ""), ("codes",)),
        (DEQUANTIZE, (0, "xx"), ("codes", "few", "few")),
        (TURN, (), ("deep",)),
        ("rotary", (3,), ("plain",)),
        ("rotary", (1 << 62,), ("plain",)),
        ("rotary", (), ("plain",)),
        ("stack", (-1,), ("plain", "plain")),
        ("stack", (7,), ("plain", "plain")),
        ("join", (0,), ("plain", "codes")),
        ("minus_one", (), ("plain",)),
    ],
)
def test_a_coding_that_fits_no_tensor_is_refused(op, args, names):
    files = Files(
        codes=np.zeros((2, 34), np.uint8),
        few=np.zeros((2, 33), np.uint8),
        plain=np.zeros((4, 4), np.float32),
        deep=np.zeros((2, 2, 2), np.float32),
    )
    with pytest.raises(ValueError, match="which does not fit its tensors"):
        decoded(Coding(op, args, tuple(map(files.leaf, names))), files.read)
