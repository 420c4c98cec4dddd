"""Activations by forward hooks, for a module that cannot be exported."""

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torchnets import Branching

from emergraph.errors import InvalidInputError
from emergraph.exporters.pytorch.hooks import trace_module
from emergraph.exporters.sources import export_any
from emergraph.graphstore.store import open_store


@pytest.fixture
def stored(tmp_path):
    def make(module):
        torch.save(module.state_dict(), tmp_path / "net.pt")
        store = open_store(tmp_path / "net.duckdb", mode="create")
        export_any(tmp_path / "net.pt", store)
        return store

    return make


def units_of(reader, name):
    first, count = reader.layers().filter(pl.col("name") == name).select("first_unit", "n_units").row(0)
    return reader.activations().filter(pl.col("unit").is_between(first, first + count - 1))


def test_a_module_with_an_if_on_data_is_recorded(stored):
    torch.manual_seed(0)
    module = Branching().train()
    batches = [torch.randn(4, 3), torch.randn(3, 3)]
    with stored(module) as store:
        result = trace_module(module, batches, store)
        frame = units_of(store.graph(), "fc")
    with torch.no_grad():
        values = module.fc(torch.cat(batches)).double().numpy()
    assert result.n_samples == 7
    np.testing.assert_allclose(frame["mean"], values.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(frame["std"], values.std(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.asarray(frame["values"].to_list()).T, values, rtol=1e-5, atol=1e-7)
    assert module.training
    assert not module.fc._forward_hooks


def test_convolutions_are_averaged_over_space(stored):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 5))
    batch = torch.randn(6, 2, 4, 4)
    with stored(module) as store:
        trace_module(module, [batch], store)
        frame = units_of(store.graph(), "0")
    expected = module[0](batch).mean((2, 3)).mean(0).detach()
    np.testing.assert_allclose(frame["mean"], expected, rtol=1e-5, atol=1e-7)


def test_a_module_of_another_graph_is_refused_and_hooks_are_gone(stored):
    module = Branching()
    with stored(module) as store:
        with pytest.raises(InvalidInputError, match="no layer of graph"):
            trace_module(nn.Sequential(nn.Linear(3, 2)), [torch.randn(2, 3)], store)
        with pytest.raises(InvalidInputError, match="does not run"):
            trace_module(module, [torch.randn(2, 9)], store)
    assert not module.fc._forward_hooks
