"""The study of ruggedness trains, counts and corrects as plain versions do, and runs from end to end."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from ruggedness.findings import between, primary, share_between, two_stages
from ruggedness.measure import emergence_of
from ruggedness.nets import activations, digits, train_group
from ruggedness.page import tables
from ruggedness_study import quick_tables

LEVELS = (0.0, 0.5, 0.9)


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def group(data):
    return train_group((64, 6, 5, 10), (3, 4, 5), LEVELS, data, steps=5)


def test_nets_trained_together_equal_nets_trained_alone(data, group):
    alone = train_group((64, 6, 5, 10), (4,), (0.5,), data, steps=5)
    for together, single in zip(group.weights, alone.weights, strict=True):
        assert torch.allclose(together[1], single[0], atol=1e-5)


def test_a_module_computes_what_the_batch_does(data, group):
    x = data.test_x[:50]
    logits = activations(group.weights, group.biases, x)[-1]
    for net in range(3):
        assert torch.allclose(group.module(net)(x), logits[net], atol=1e-5)


def test_the_smallest_weights_are_removed_and_stay_removed(group):
    for net, level in enumerate(LEVELS):
        kept = np.concatenate([m.ravel() for m in group.matrices(net)])
        assert np.mean(kept == 0) == pytest.approx(level, abs=2e-3)


def test_emergence_counts_paths_of_the_pruned_graph(data, group):
    x = data.train_x[:100]
    for net in range(3):
        row = emergence_of(group, net, x)
        hidden = [layer[net].mean(dim=0) for layer in activations(group.weights, group.biases, x)]
        on = [np.asarray(h > 0.05, dtype=float) for h in (x.mean(dim=0), *hidden)]
        masks = [(m != 0).astype(float) for m in group.matrices(net)]
        # p(v): paths from v that end at an active unit and stay within active units.
        paths, total = on[-1], 0.0
        for mask, active in zip(masks[::-1], on[-2::-1], strict=True):
            onward = mask @ paths
            total += float((1 - active) @ onward)
            paths = active * (1 + onward)
        assert row["E_active"] == total
        assert row["E_active_per_density"] == pytest.approx(total / (1 - row["sparsity"]))


def test_the_quick_study_runs_from_end_to_end(data):
    small = replace(data, train_x=data.train_x[:200], train_y=data.train_y[:200])
    nets, found = quick_tables(small)
    assert nets.height == 12
    assert found["n"].max() == 12
    assert found.filter(measure="E_active", control="raw")["rho"].is_not_null().any()
    assert found["p"].drop_nulls().min() >= 0.01
    assert "| filter_rise |" in tables(found)


def test_design_apart_from_seed():
    """Cells differ in both, and networks of a cell do not: it shows between cells and nowhere else."""
    rng = np.random.default_rng(0)
    rows = [
        {"sizes": f"a{k}", "level": level, "seed": s, "E_active": 10 ** (k + level + rng.normal() / 50),
         "filter_rise": k + level + rng.normal() / 50}
        for k in range(4) for level in (0.0, 0.5) for s in range(8)
    ]  # fmt: skip
    nets = pl.DataFrame(rows)
    assert share_between(nets) > 0.99
    assert between(nets, "filter_rise")["mean"] > 0.99
    own = two_stages(nets, "filter_rise")
    assert own["n"] == 8
    assert own["low"] < 0 < own["high"]
    both = nets.with_columns(filter_excess_ruggedness="filter_rise", lon_n_optima="filter_rise")
    tested = primary({"networks": both, "seeds": both})
    assert tested["n"].to_list() == [64] * 3
    assert tested["mean"].abs().max() < 0.4
