"""Structured removals beside Torch-Pruning: equal where it is right, the masked model where it is not.

Each net is built twice, in PyTorch and in ONNX, with the same weights; channels 1 and 4 of `first` go. The
oracle is the unpruned net with those channels set to zero.
"""

import copy
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from nets import Net
from onnx import numpy_helper

from emergraph.analysis.pruning.smaller import Shrinker, largest_difference
from emergraph.exporters.runtime.concrete import concrete_run
from emergraph.exporters.runtime.sources import InMemorySource

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tp = pytest.importorskip("torch_pruning")
nn = torch.nn
GONE = [1, 4]


class Weighted(nn.Module):
    """A net, and how to say it in ONNX with the same weights."""

    shape = (1, 3, 6, 6)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 1)
        self.build()

    def to_onnx(self):
        net = Net()
        self.net = net
        net.output(self.say(net, net.input(*self.shape, name="x")))
        return net.model()

    def conv(self, name, x, **attributes):
        values = [
            self.net.value(p.detach().numpy(), name=f"{name}.{n}")
            for n, p in getattr(self, name).named_parameters()
        ]
        return self.net.op("Conv", x, *values, **attributes)


class Depthwise(Weighted):
    def build(self):
        self.deep = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.last(torch.relu(self.deep(torch.relu(self.first(x)))))

    def say(self, net, x):
        h = net.op("Relu", self.conv("first", x))
        return self.conv("last", net.op("Relu", self.conv("deep", h, group=8)))


class Concat(Weighted):
    def build(self):
        self.other, self.last = nn.Conv2d(3, 5, 1), nn.Conv2d(13, 4, 3)

    def forward(self, x):
        return self.last(torch.relu(torch.cat([self.other(x), self.first(x)], 1)))

    def say(self, net, x):
        joined = net.op("Concat", self.conv("other", x), self.conv("first", x), axis=1)
        return self.conv("last", net.op("Relu", joined))


class Residual(Weighted):
    def build(self):
        self.branch, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        h = self.first(x)
        return self.last(h + self.branch(torch.relu(h)))

    def say(self, net, x):
        h = self.conv("first", x)
        return self.conv("last", net.op("Add", h, self.conv("branch", net.op("Relu", h))))


class Shuffle(Weighted):
    def build(self):
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        h = self.first(x)
        n, channels, height, width = h.shape
        h = h.reshape(n, 2, channels // 2, height, width).transpose(1, 2)
        return self.last(torch.relu(h.reshape(n, channels, height, width)))

    def say(self, net, x):
        h = net.op("Reshape", self.conv("first", x), net.ints(1, 2, 4, 6, 6))
        h = net.op("Reshape", net.op("Transpose", h, perm=[0, 2, 1, 3, 4]), net.ints(1, 8, 6, 6))
        return self.conv("last", net.op("Relu", h))


class ChannelsLast(Weighted):
    def build(self):
        self.last = nn.Linear(8 * 36, 4)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)).permute(0, 2, 3, 1).flatten(1))

    def say(self, net, x):
        h = net.op("Transpose", net.op("Relu", self.conv("first", x)), perm=[0, 2, 3, 1])
        weight, bias = (p.detach().numpy() for p in self.last.parameters())
        return net.op("Gemm", net.op("Flatten", h), net.value(weight), net.value(bias), transB=1)


class Attention(Weighted):
    """Two heads of four features each, whose queries are the channels of `first`."""

    def build(self):
        self.keys, self.values = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        q, k, v = (
            part(x).reshape(1, 2, 4, 36).transpose(2, 3) for part in (self.first, self.keys, self.values)
        )
        h = torch.softmax(q @ k.transpose(2, 3), -1) @ v
        return self.last(h.transpose(2, 3).reshape(1, 8, 6, 6))

    def say(self, net, x):
        q, k, v = (
            net.op("Reshape", self.conv(part, x), net.ints(1, 2, 4, 36))
            for part in ("first", "keys", "values")
        )
        scores = net.op("Softmax", net.op("MatMul", net.op("Transpose", q, perm=[0, 1, 3, 2]), k), axis=-1)
        h = net.op("MatMul", scores, net.op("Transpose", v, perm=[0, 1, 3, 2]))
        h = net.op("Reshape", net.op("Transpose", h, perm=[0, 1, 3, 2]), net.ints(1, 8, 6, 6))
        return self.conv("last", h)


def theirs(net, x):
    """What Torch-Pruning makes of it: the shapes of its weights, and its outputs."""
    pruned = copy.deepcopy(net).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(pruned, example_inputs=x)
        graph.get_pruning_group(pruned.first, tp.prune_conv_out_channels, idxs=GONE).prune()
    return shapes(p.shape for p in pruned.parameters()), pruned(x).detach().numpy()


def ours(net, x, tensors=("first.weight", "first.bias")):
    """The smaller ONNX model with some tensors' channels masked, beside the masked model."""
    model = net.to_onnx()
    source = InMemorySource(model)
    zeroed = {}
    for tensor in model.graph.initializer:
        if tensor.name in tensors:
            mask = np.zeros(tuple(tensor.dims), dtype=bool)
            mask[GONE] = True
            zeroed[tensor.name] = np.flatnonzero(mask)
    smaller, _ = Shrinker(concrete_run(source), source).smaller(zeroed)
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    for tensor in masked.graph.initializer:
        if tensor.name in zeroed:
            values = numpy_helper.to_array(tensor).copy()
            values.reshape(-1)[zeroed[tensor.name]] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    outputs = [
        ort.InferenceSession(m.SerializeToString()).run(None, {"x": x.numpy()})[0] for m in (smaller, masked)
    ]
    weights = (t.dims for t in smaller.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    return shapes(weights), outputs[0], outputs[1]


def shapes(found):
    return sorted(tuple(int(size) for size in shape) for shape in found if len(shape) > 1)


def both(kind, tensors=("first.weight", "first.bias")):
    net = kind().eval()
    x = torch.randn(kind.shape, generator=torch.Generator().manual_seed(1))
    their_shapes, their_output = theirs(net, x)
    our_shapes, our_output, masked = ours(net, x, tensors)
    assert largest_difference([masked], [our_output]) < 1e-6
    return their_shapes == our_shapes, largest_difference([masked], [their_output])


@pytest.mark.parametrize("kind", [Depthwise, Concat])
def test_the_same_model_where_both_are_right(kind):
    same_shapes, difference = both(kind)
    assert same_shapes
    assert difference < 1e-6


def test_a_residual_group_is_the_same_when_all_of_it_goes():
    same_shapes, difference = both(Residual, ("first.weight", "first.bias", "branch.weight", "branch.bias"))
    assert same_shapes
    assert difference < 1e-6


def test_a_part_of_a_residual_group_takes_more_with_it_there_and_stays_here():
    same_shapes, difference = both(Residual)
    assert not same_shapes
    assert difference > 1e-3


def test_a_channel_shuffle_is_wrong_there_and_kept_here():
    same_shapes, difference = both(Shuffle)
    assert not same_shapes
    assert difference > 1e-3


def test_channels_last_flattening_is_wrong_there_and_right_here():
    same_shapes, difference = both(ChannelsLast)
    assert same_shapes
    assert difference > 1e-3


def test_features_of_attention_heads_fail_there_and_stay_here():
    net = Attention().eval()
    x = torch.randn(Attention.shape, generator=torch.Generator().manual_seed(1))
    with pytest.raises(RuntimeError, match="is invalid for input of size"):
        theirs(net, x)
    our_shapes, our_output, masked = ours(net, x)
    assert our_shapes == shapes(p.shape for p in net.parameters())
    assert largest_difference([masked], [our_output]) < 1e-6
