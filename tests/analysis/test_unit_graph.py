"""Building unit graphs from arrays."""

import numpy as np
import pytest

from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.errors import InvalidInputError
from emergraph.graphstore.records import EdgeKind, LayerKind, Role


def layer(number, first, n, kind=LayerKind.DENSE):
    return UnitLayer(id=number, name=f"l{number}", kind=kind, first_unit=first, n_units=n)


def test_layers_need_not_lie_in_order_of_id():
    graph = from_arrays([layer(0, 3, 2, LayerKind.INPUT), layer(1, 0, 3)], [])
    assert graph.unit_layer.tolist() == [1, 1, 1, 0, 0]
    assert graph.layer_of(1).units == slice(0, 3)
    assert graph.layer_position(1) == 1


@pytest.mark.parametrize(
    "layers",
    [[layer(0, 0, 2), layer(1, 3, 1)], [layer(0, 0, 2), layer(1, 1, 2)], [layer(1, 0, 2), layer(0, 2, 1)]],
    ids=["gap", "overlap", "ids fall"],
)
def test_layers_that_do_not_fit_are_refused(layers):
    with pytest.raises(InvalidInputError):
        from_arrays(layers, [])


def test_blocks_lead_into_known_layers():
    with pytest.raises(InvalidInputError, match="unknown layers"):
        from_arrays([layer(0, 0, 1)], [UnitBlock(id=0, kind=EdgeKind.WEIGHT, layer=4, n_edges=1)])


def test_dense_blocks_make_their_edges():
    net = dense_net([2, 3])
    ((block, edges),) = net.iter_edges(columns=("src", "dst", "n_params", "weight", "l1"))
    assert block.n_edges == net.n_edges == 6
    assert edges["src"].tolist() == [0, 0, 0, 1, 1, 1]
    assert edges["dst"].tolist() == [2, 3, 4, 2, 3, 4]
    assert edges["n_params"].tolist() == [1] * 6
    assert np.isnan(edges["weight"]).all()
    assert np.isnan(edges["l1"]).all()
    with pytest.raises(InvalidInputError, match="Unknown edge column"):
        next(net.iter_edges(columns=("colour",)))


def test_missing_columns_of_other_blocks_are_refused():
    graph = from_arrays([layer(0, 0, 1)], [UnitBlock(id=0, kind=EdgeKind.WEIGHT, layer=0, n_edges=1)])
    with pytest.raises(InvalidInputError, match="no column 'src'"):
        next(graph.iter_edges())


def test_roles_and_neurons_follow_the_layers_unless_given():
    layers = [layer(0, 0, 1, LayerKind.INPUT), layer(1, 1, 1, LayerKind.SCORE), layer(2, 2, 1)]
    assert from_arrays(layers, []).neuron.tolist() == [True, False, True]
    assert from_arrays(layers, []).role.tolist() == [0, 1, 2]
    given = from_arrays(layers, [], role=[Role.HIDDEN, Role.OUTPUT, Role.OUTPUT], neuron=np.array([1, 1, 1]))
    assert given.role.tolist() == [1, 2, 2]
    assert given.neuron.all()
