"""Finding samples in tensors by experiment, on pretended models."""

import numpy as np
import pytest

from emergraph.exporters.runtime.pooling import SampleAxis, pooled
from emergraph.exporters.runtime.process import Fetched
from emergraph.exporters.traces.running import Mixed, axes_of_dynamic_batch, axes_of_fixed_batch

DATA = np.random.default_rng(0).standard_normal((10, 4, 3))
"""Ten samples of four tokens and three features."""


def runner(model):
    """Pretend to run `model`, a function from samples (n, 4, 3) to a dict of tensors."""

    def run(indices, pooling):
        tensors = model(DATA[list(indices)])
        found = {}
        for name, values in tensors.items():
            if not pooling:
                found[name] = Fetched("tensor", values.shape, 1, None)
            elif name in pooling:
                asked = pooling[name]
                numbers = pooled(values, asked.unit_axes, asked.where, asked.n_samples)
                found[name] = Fetched("tensor", values.shape, 1, None, numbers)
        return found

    return run


TENSORS = {
    "plain": (lambda x: x, (2,), SampleAxis(0)),
    "time_first": (lambda x: x.transpose(1, 0, 2), (2,), SampleAxis(1)),
    "merged": (lambda x: x.reshape(-1, 3), (1,), SampleAxis(0)),
    "merged_inside": (lambda x: x.transpose(1, 0, 2).reshape(-1, 3), (1,), SampleAxis(0, innermost=True)),
    "units_merged": (lambda x: x.reshape(-1, 3), (0, 1), SampleAxis(0)),
    "shared": (lambda x: np.arange(6.0).reshape(2, 3), (1,), None),
    "directions": (lambda x: np.stack([x, -x]).transpose(2, 0, 1, 3), (1, 3), SampleAxis(2)),
}


def test_dynamic_batches():
    units = {name: axes for name, (_, axes, _) in TENSORS.items()}
    found = axes_of_dynamic_batch(
        runner(lambda x: {name: make(x) for name, (make, _, _) in TENSORS.items()}), units, (0, 9)
    )
    assert found == {name: place for name, (_, _, place) in TENSORS.items()}


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: x - x.mean(0),
        lambda x: np.cumsum(x, axis=0),
        lambda x: x[:1] * np.ones(len(x))[:, None, None],
        lambda x: x.sum(0),
        lambda x: x.reshape(3, -1),
    ],
    ids=["centred", "carried on", "first only", "summed", "scrambled"],
)
def test_mixed_samples_are_noticed(mixing):
    found = axes_of_dynamic_batch(
        runner(lambda x: {"ok": x, "bad": mixing(x)}), {"ok": (2,), "bad": (-1,)}, (0, 9)
    )
    assert found == Mixed("bad")


def test_fixed_batches():
    tensors = {name: entry for name, entry in TENSORS.items() if name != "shared"}
    units = {name: axes for name, (_, axes, _) in tensors.items()}
    found = axes_of_fixed_batch(
        runner(lambda x: {name: make(x) for name, (make, _, _) in tensors.items()}), units, [0, 1, 2, 3, 4]
    )
    assert found == {name: place for name, (_, _, place) in tensors.items()}


def test_a_fixed_batch_as_large_as_another_axis():
    """Four samples of four tokens: only the order tells which axis is which."""
    make = {"plain": lambda x: x, "time_first": lambda x: x.transpose(1, 0, 2)}
    found = axes_of_fixed_batch(
        runner(lambda x: {name: function(x) for name, function in make.items()}),
        {"plain": (2,), "time_first": (2,)},
        [0, 1, 2, 3],
    )
    assert found == {"plain": SampleAxis(0), "time_first": SampleAxis(1)}


def test_a_fixed_batch_that_is_mixed_is_noticed():
    run = runner(lambda x: {"bad": np.cumsum(x, axis=0)})
    assert axes_of_fixed_batch(run, {"bad": (2,)}, [0, 1, 2, 3, 4]) == Mixed("bad")
