"""The weight-change rule against its definition, with edges that come and go."""

import numpy as np
import pytest

from emergraph.analysis.activity.weightchange import weight_change_scores
from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind, LayerKind


def graph_of(matrix):
    """One layer of weights (in, out); zeros are no edges."""
    n, m = matrix.shape
    layers = [
        UnitLayer(id=0, name="x", kind=LayerKind.INPUT, first_unit=0, n_units=n),
        UnitLayer(id=1, name="y", kind=LayerKind.DENSE, first_unit=n, n_units=m),
    ]
    src, dst = np.nonzero(matrix)
    block = UnitBlock(id=0, kind=EdgeKind.WEIGHT, layer=1, n_edges=len(src), name="b")
    return from_arrays(layers, [block], {0: {"src": src, "dst": dst + n, "weight": matrix[src, dst]}})


@pytest.mark.parametrize("pruned", [False, True], ids=["all edges", "edges come and go"])
def test_scores_equal_the_definition(pruned):
    rng = np.random.default_rng(3)
    before, after = rng.standard_normal((2, 6, 4))
    if pruned:
        before *= rng.random((6, 4)) < 0.6
        after *= rng.random((6, 4)) < 0.6
    scores = weight_change_scores(graph_of(before), graph_of(after)).values
    expected = np.linalg.norm(after - before, axis=0) / np.linalg.norm(before, axis=0)
    assert np.isnan(scores[:6]).all()
    np.testing.assert_allclose(scores[6:], expected, rtol=1e-12)


def test_limits():
    before = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    after = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    scores = weight_change_scores(graph_of(before), graph_of(after)).values
    assert scores[2] == np.inf
    assert scores[3] == 0.0
    assert np.isnan(scores[4])


def test_other_models_are_refused():
    with pytest.raises(UsageError, match="not snapshots of one model"):
        weight_change_scores(dense_net([2, 3]), dense_net([2, 4]))
