import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.landscape.directions import (
    gaussian,
    inner_products,
    normalise,
    orthogonalise,
    perturbation_scale,
    random_directions,
)
from emergraph.analysis.landscape.layout import Layout, ParameterBlock, group_ids, vector_mask
from emergraph.analysis.landscape.options import Norm
from emergraph.errors import UsageError

SHAPES = [(5, 3, 2, 2), (5,), (7, 5), (7,)]


@pytest.fixture
def layout():
    return Layout.of_shapes(SHAPES)


@pytest.fixture
def base(layout):
    return np.random.default_rng(3).normal(size=layout.n_params)


def test_filter_rows_have_the_norm_of_the_weights(base, layout):
    d = normalise(gaussian(layout.n_params, seed=0, index=0), base, layout, Norm.FILTER)
    for block in layout.blocks:
        w, v = base[block.span].reshape(block.shape), d[block.span].reshape(block.shape)
        if block.is_vector:
            assert not v.any()
            continue
        for row in range(block.shape[0]):
            assert np.linalg.norm(v[row]) == pytest.approx(np.linalg.norm(w[row]))


def test_filters_along_the_last_axis():
    block = ParameterBlock(name="w", shape=(3, 2), offset=0, unit_axes=(1,))
    base = np.arange(1.0, 7.0)
    d = normalise(np.ones(6), base, Layout((block,)), Norm.FILTER).reshape(3, 2)
    assert np.linalg.norm(d, axis=0) == pytest.approx(np.linalg.norm(base.reshape(3, 2), axis=0))


def test_two_unit_axes_make_one_filter_per_pair():
    block = ParameterBlock(name="lstm", shape=(2, 3, 4), offset=0, unit_axes=(0, 1))
    assert group_ids(Layout((block,)), Norm.FILTER).tolist() == np.repeat(np.arange(6), 4).tolist()


def test_layer_norm_matches_per_tensor(base, layout):
    d = normalise(gaussian(layout.n_params, seed=0, index=0), base, layout, Norm.LAYER)
    for block in layout.blocks:
        expected = 0 if block.is_vector else np.linalg.norm(base[block.span])
        assert np.linalg.norm(d[block.span]) == pytest.approx(expected)


def test_element_norm_covers_vectors(base, layout):
    g = gaussian(layout.n_params, seed=0, index=0)
    assert normalise(g, base, layout, Norm.ELEMENT) == pytest.approx(g * np.abs(base))


@pytest.mark.parametrize("norm", [Norm.FILTER, Norm.LAYER, Norm.ELEMENT])
def test_scale_is_the_expected_size_of_a_perturbation(base, layout, norm):
    scale = perturbation_scale(base, layout, norm)
    for block in layout.blocks:
        expected = 0 if block.is_vector and norm is not Norm.ELEMENT else np.linalg.norm(base[block.span])
        assert np.linalg.norm(scale[block.span]) == pytest.approx(expected)


@pytest.mark.parametrize("norm", list(Norm))
def test_orthogonal_after_normalising_in_the_metric_of_the_norm(base, layout, norm):
    d = random_directions(base, layout, n=4, seed=1, norm=norm, orthogonal=True)
    assert d.gram == pytest.approx(np.eye(4), abs=1e-12)
    raw = random_directions(base, layout, n=4, seed=1, norm=norm)
    assert d.vectors[0] == pytest.approx(raw.vectors[0])
    scale = perturbation_scale(base, layout, norm)
    assert np.diag(inner_products(d.vectors, scale)) == pytest.approx(
        np.diag(inner_products(raw.vectors, scale))
    )
    if norm is Norm.NONE:
        assert d.cosines == pytest.approx(np.eye(4), abs=1e-12)


def test_random_directions_are_never_nearly_collinear():
    # Subtracting (d1.d2) d2 without dividing by |d2|^2 gives |cos| = 0.9996 at this size.
    layout = Layout.of_shapes([(27, 28), (15,)])
    d = random_directions(np.ones(771), layout, n=2, seed=0, norm=Norm.NONE, orthogonal=True)
    assert abs(d.cosines[0, 1]) < 1e-12
    assert np.linalg.norm(d.vectors, axis=1) == pytest.approx([28, 28], rel=0.1)


def test_directions_are_drawn_from_a_centred_law():
    # Uniform draws in [0, 1] have a mean cosine of 3/4 between two directions.
    d = random_directions(np.ones(2000), Layout.of_shapes([(2, 1000)]), n=6, seed=0, norm=Norm.NONE)
    assert np.abs(d.cosines - np.eye(6)).max() < 4 / np.sqrt(2000)


def test_a_direction_does_not_depend_on_how_many_are_drawn(base, layout):
    few = random_directions(base, layout, n=2, seed=9)
    many = random_directions(base, layout, n=5, seed=9)
    assert np.array_equal(few.vectors, many.vectors[:2])


@given(st.integers(0, 10**6), st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_gram_schmidt_agrees_with_qr(seed, n):
    rng = np.random.default_rng(seed)
    vectors, scale = rng.normal(size=(n, 12)), rng.uniform(0.5, 2, size=12)
    found = orthogonalise(vectors, scale) / scale
    q, _ = np.linalg.qr((vectors / scale).T)
    assert np.abs((found / np.linalg.norm(found, axis=1)[:, None]) @ q) == pytest.approx(np.eye(n), abs=1e-8)


def test_dependent_vectors_are_refused():
    with pytest.raises(UsageError, match="linearly dependent"):
        orthogonalise(np.array([[1.0, 2.0], [2.0, 4.0]]), np.ones(2))


def test_zero_filters_stay_zero():
    layout = Layout.of_shapes([(2, 3)])
    base = np.array([0.0, 0, 0, 1, 2, 3])
    d = random_directions(base, layout, n=2, seed=0, orthogonal=True)
    assert not d.vectors[:, :3].any()
    assert np.isfinite(d.vectors).all()


def test_layout_refuses_gaps_and_repeated_names():
    with pytest.raises(UsageError, match="offsets"):
        Layout((ParameterBlock(name="a", shape=(2,), offset=1),))
    with pytest.raises(UsageError, match="same name"):
        Layout.of_shapes([(2,), (3,)], ["a", "a"])


def test_vectors_are_masked(layout):
    assert vector_mask(layout).sum() == 12


def test_layer_rescaling_commutes_with_filter_norm_and_orthogonalisation(base, layout):
    """Multiplying a tensor by c multiplies the directions there by c, whatever the other tensors do."""
    factor = np.ones(layout.n_params)
    factor[layout.blocks[0].span], factor[layout.blocks[2].span] = 5.0, 0.2
    for norm in (Norm.FILTER, Norm.LAYER, Norm.ELEMENT):
        before = random_directions(base, layout, n=3, seed=2, norm=norm, orthogonal=True)
        after = random_directions(base * factor, layout, n=3, seed=2, norm=norm, orthogonal=True)
        assert after.vectors == pytest.approx(before.vectors * factor)
