"""A module's parameters are those that its evaluated forward uses: buffers apart, the others named."""

import pytest
import torch
from torch import nn

from emergraph.exporters.sources import export_module
from emergraph.graphstore.store import open_store


class Mixed(nn.Module):
    """Normalisation with buffers, tied weights, a buffer that is added, and parts that forward leaves out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.Linear(4, 6, bias=False)
        self.tied = nn.Linear(4, 6, bias=False)
        self.tied.weight = self.up.weight
        self.head = nn.Linear(6, 2)
        self.auxiliary = nn.Linear(6, 5)
        self.register_buffer("offset", torch.randn(6))

    def forward(self, x):
        h = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.head(torch.relu(self.up(h) + self.tied(h) + self.offset))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    module = Mixed()
    module.norm.running_var.uniform_(0.5, 2.0)
    module.norm.running_mean.normal_()
    with open_store(tmp_path_factory.mktemp("used") / "s.duckdb", mode="create") as store:
        summary = export_module(module, (torch.randn(1, 3, 6, 6),), store)
        reader = store.graph()
        return module, summary, reader.layers(), reader.tensors(), reader.summary


def test_used_parameters_are_counted_without_buffers(exported):
    module, summary, layers, _, stored = exported
    unused = sum(p.numel() for p in module.auxiliary.parameters())
    expected = sum(p.numel() for p in module.parameters()) - unused
    assert summary.trace.n_parameters == summary.trace.n_parameters_understood == expected
    assert stored["n_parameters"] == expected
    by_name = dict(layers.select("name", "n_params").iter_rows())
    assert by_name["conv"] == 4 * 3 * 9 + 4 + 4
    # a tied weight belongs to each layer that uses it; the buffer is no parameter of either
    assert sorted(n for name, n in by_name.items() if name in ("up", "tied")) == [24, 24]
    assert by_name["head"] == 14


def test_buffers_are_kept_as_such(exported):
    tensors = exported[3]
    buffers = tensors.filter(tensors["role"] == "buffer")["name"].to_list()
    # torch adds constants of its own
    own = sorted(name for name in buffers if not name.startswith("val_"))
    assert own == ["norm.running_mean", "norm.running_var", "offset"]


def test_unused_parameters_are_named(exported):
    assert "Mixed does not use auxiliary.weight, auxiliary.bias of its own" in exported[1].trace.warnings
