"""Whether an export computes what its module computes, on both sides of every size."""

import numpy as np
import pytest
from nets import Net

from emergraph.errors import InvalidInputError
from emergraph.exporters.pytorch.checking import compare
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import SMALL_ELEMENTS, ModelProcess
from emergraph.exporters.runtime.sources import InMemorySource


@pytest.fixture(scope="module")
def process():
    with ModelProcess(RunLimits()) as running:
        yield running


@pytest.mark.parametrize("n", [SMALL_ELEMENTS, SMALL_ELEMENTS + 1, 300_000])
def test_outputs_of_any_size_are_compared_in_full(process, n):
    net = Net()
    net.output(net.op("Neg", net.input(1, n, name="x")))
    x = np.random.default_rng(0).normal(size=(1, n)).astype(np.float32)
    source = InMemorySource(net.model())
    compare(source, {"x": x}, [-x], "Negative", process)
    wrong = -x
    wrong[0, -1] += 1
    with pytest.raises(InvalidInputError, match=r"Negative .* something else: output 0 differs by up to 1"):
        compare(source, {"x": x}, [wrong], "Negative", process)
