"""The study counts and trains as the library and a plain loop do."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch
from nets import Net
from onnx import numpy_helper
from pathcounts.claims import (
    LOST,
    RHO,
    Effect,
    _changes,
    initialisation_effects,
    judged,
)
from pathcounts.convnets import ConvNets, he_kernels
from pathcounts.counting import channel_masks, dense_counts, position_counts
from pathcounts.densenets import DenseNets, he_weights
from pathcounts.experiment import dense_activity, run_plan
from pathcounts.images import Part
from pathcounts.masks import global_masks
from pathcounts.page import write_page
from pathcounts.plans import QUICK
from pathcounts.rules import RuleSetting, active_by_samples
from scipy import stats

from emergraph.analysis.activity.rules import activity
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.intervals import bootstrap_emergence
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.positionops import Tensors
from emergraph.analysis.emergence.positionrun import neuron_tensors, position_count
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.statistics.permutation import sign_flip_p, student_p

SIZES = (20, 12, 8, 5)
SEEDS = (3, 4)


@pytest.fixture(scope="module")
def nets() -> DenseNets:
    weights, biases = he_weights(SIZES, SEEDS)
    masks = global_masks(weights, 0.6)
    biases = [b + 0.1 for b in biases]
    return DenseNets(weights, biases, masks, n_variants=1)


def test_counts_are_those_of_the_library_for_every_rule(nets: DenseNets) -> None:
    x = torch.rand(30, SIZES[0], generator=torch.Generator().manual_seed(0))
    weights, found = nets.weights, nets.activations(x)
    before = [
        w * (1 + 0.1 * torch.rand(w.shape, generator=torch.Generator().manual_seed(1))) for w in weights
    ]
    masks = [(w != 0).float() for w in weights]
    for setting, active in dense_activity(found, weights, before):
        counts = dense_counts(active, masks)
        dense = dense_counts(active, [torch.ones_like(m) for m in masks])
        if None in active:
            assert counts.printed.isnan().all()
        else:
            # the printed formula is what `any` counts where every layer is fully connected
            assert counts.printed.expand(2).tolist() == pytest.approx(dense.any.expand(2).tolist())
            assert (counts.printed > counts.any).all()
        for network in range(len(SEEDS)):
            graph = layered_net([w[network].numpy() for w in weights])
            samples = torch.cat([found[0][0], *(a[network] for a in found[1:])], dim=1).numpy()
            trace = UnitTrace.from_samples(samples)
            if setting.rule == "per_sample":
                result = bootstrap_emergence(
                    graph, trace, setting.rule, threshold=setting.threshold, n_draws=2
                )
                expected = [result.range(i).observed.value for i in ("active", "any")]
            else:
                earlier = layered_net([w[network].numpy() for w in before])
                chosen = activity(
                    setting.rule, graph, threshold=setting.threshold, trace=trace, before=earlier
                )
                counted = path_count_emergence(graph, chosen)
                expected = [counted.active.emergence.value, counted.any.emergence.value]
                assert counts.n_active[network] == counted.n_active, setting
            assert [float(counts.active[network]), float(counts.any[network])] == pytest.approx(expected), (
                setting
            )


def test_convolutional_counts_are_those_of_the_library() -> None:
    weights, biases = he_kernels((5,))
    masks = global_masks(weights, 0.6)
    nets = ConvNets(weights, biases, masks, n_variants=1)
    x = torch.rand(6, 784, generator=torch.Generator().manual_seed(2))
    found = nets.activations(x)
    active = [active_by_samples(RuleSetting("mean", 0.1), a) for a in found]
    edges = [(w != 0).float() for w in nets.weights]
    counted = position_counts(active, edges)
    model = Net()
    a = model.input(1, 1, 28, 28)
    names = [a]
    for layer, (stride, padding) in enumerate(((2, 2), (1, 1))):
        weight = model.value(edges[layer][0].numpy())
        a = model.op("Conv", a, weight, pads=[padding] * 4, strides=[stride] * 2)
        names.append(a)
        a = model.op("MaxPool", model.op("Relu", a), kernel_shape=[2, 2], strides=[2, 2])
    names.append(model.op("MatMul", model.op("Flatten", a), model.value(edges[2][0].numpy())))
    model.output(names[-1])
    graph = model.model().graph
    held = {p.name: numpy_helper.to_array(p) for p in graph.initializer}
    sides = {"Conv": iter(((1, 4, 14, 14), (1, 8, 7, 7))), "MaxPool": iter(((1, 4, 7, 7), (1, 8, 3, 3)))}
    shapes = {names[0]: (1, 1, 28, 28)} | {name: array.shape for name, array in held.items()}
    for node in graph.node:
        fixed = {"Flatten": (1, 72), "MatMul": (1, 10)}.get(node.op_type)
        shape = next(sides[node.op_type]) if node.op_type in sides else fixed
        shapes[node.output[0]] = shape or shapes[node.input[0]]
    tensors = Tensors(shape=shapes.__getitem__, constant=held.get, opset=17)
    neurons = neuron_tensors(graph.node, [names[0]], tensors)
    on = {name: a[0].numpy().reshape(shapes[name]) for name, a in zip(names, active, strict=True)}
    library = position_count(graph.node, neurons, on, tensors)
    assert [float(counted.active[0]), float(counted.any[0])] == [library.active.value, library.any.value]
    pooled = [a if a.ndim == 3 else a.mean(dim=(3, 4)) for a in found]
    by_channel = [active_by_samples(RuleSetting("mean", 0.1), a) for a in pooled]
    between = channel_masks(edges)
    channels = dense_counts(by_channel, between)
    net = layered_net([m[0].numpy() for m in between])
    wanted = path_count_emergence(net, np.concatenate([a[0, 0].numpy() for a in by_channel]))
    assert float(channels.active[0]) == wanted.active.emergence.value
    assert float(channels.any[0]) == wanted.any.emergence.value


def test_a_step_is_gradient_descent_as_autograd_does_it() -> None:
    weights, biases = he_weights(SIZES, SEEDS)
    masks = global_masks(weights, 0.4)
    twice = [w.repeat_interleave(2, dim=0) for w in weights]
    masks = [torch.stack([torch.ones_like(m), m], dim=1).flatten(0, 1) for m in masks]
    nets = DenseNets(twice, [b.repeat_interleave(2, dim=0) for b in biases], masks, n_variants=2)
    generator = torch.Generator().manual_seed(0)
    part = Part(torch.rand(12, SIZES[0], generator=generator), torch.randint(5, (12,), generator=generator))
    orders = torch.stack([torch.randperm(12, generator=generator) for _ in SEEDS])
    losses = nets.train_epoch(part, orders, batch=6, rate=0.1)
    for network in range(4):
        mask = [m[network] for m in masks]
        own = [(w[network] * m).requires_grad_() for w, m in zip(twice, mask, strict=True)]
        own += [b[network // 2].clone().requires_grad_() for b in biases]
        total = 0.0
        for at in orders[network // 2].split(6):
            a = part.x[at]
            for layer in range(3):
                a = a @ own[layer] + own[3 + layer]
                a = a.relu() if layer < 2 else a
            loss = torch.nn.functional.cross_entropy(a, part.y[at])
            gradients = torch.autograd.grad(loss, own)
            with torch.no_grad():
                for p, g, m in zip(own, gradients, [*mask, 1.0, 1.0, 1.0], strict=True):
                    p.sub_(0.1 * g * m)
            total += float(loss.detach())
        assert float(losses[network]) == pytest.approx(total / 2, rel=1e-5)
        for layer in range(3):
            torch.testing.assert_close(nets.weights[layer][network], own[layer], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(nets.biases[layer][network], own[3 + layer], rtol=1e-4, atol=1e-6)


def test_pruning_removes_exactly_the_share_of_the_smallest() -> None:
    masks = global_masks([torch.tensor([[[1.0, -3.0], [2.0, 1.0]]]), torch.tensor([[[5.0], [-1.0]]])], 0.5)
    # Of the three weights of size 1, all go: round(0.5 * 6) = 3 are removed, in the order of their place.
    assert [m.flatten().tolist() for m in masks] == [[0, 1, 1, 0], [1, 0]]


def test_sign_flips_and_student_agree_with_counting_and_scipy() -> None:
    values = np.array([0.3, -0.1, 0.5, 0.2])
    means = [np.mean(np.array(signs) * values) for signs in itertools.product((1, -1), repeat=4)]
    assert sign_flip_p(values) == np.mean(np.abs(means) >= values.mean() - 1e-12)
    assert student_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert student_p(np.ones(3)) == 0.25


def test_verdicts_follow_interval_and_corrected_p() -> None:
    def effect(values: list[float]) -> Effect:
        return Effect("falls", "g", "units", "mean 0.05", "any", "d", "u", np.array(values))

    frame = judged([effect([1.0, 1.1, 0.9, 1.0]), effect([-1.0, -1.1, -0.9, -1.0]), effect([1.0, -1.0, 0.5])])
    assert frame["verdict"].to_list() == ["confirmed", "refuted", "undecided"]


@pytest.mark.parametrize(
    ("centre", "unit", "verdict"),
    [
        (0.02, LOST, "no effect"),
        (-0.02, LOST, "no effect"),
        (0.06, LOST, "confirmed"),
        (-0.06, LOST, "refuted"),
        (0.08, RHO, "no effect"),
        (0.02, "another unit", "confirmed"),
    ],
)
def test_an_effect_within_the_margin_is_none_however_small_its_p(centre, unit, verdict):
    values = centre + 0.001 * np.arange(-4.0, 5.0)
    (row,) = judged([Effect("falls", "g", "units", "mean 0.05", "any", "d", unit, values)]).to_dicts()
    assert row["p_holm"] < 0.001
    assert row["verdict"] == verdict


def test_series_that_only_drift_together_go_together_and_not_beyond_the_shared_time_course():
    epochs, rng = np.arange(15), np.random.default_rng(0)
    rows = [
        {
            "seed": seed,
            "epoch": int(epoch),
            "any": float(1000 * np.exp(-epoch / 5) + rng.normal()),
            "test_accuracy": float(1 - np.exp(-epoch / 5) + 1e-4 * rng.normal()),
        }
        for seed in range(10)
        for epoch in epochs
    ]

    def effect(claim: str, values: np.ndarray, detail: str, unit: str) -> Effect:
        return Effect(claim, "g", "units", "mean 0.05", "any", detail, unit, values)

    found = judged(list(_changes(pl.DataFrame(rows), effect, "any")))
    assert found["verdict"].to_list() == ["confirmed", "undecided"]
    assert found["mean"][0] > 0.8
    assert abs(found["mean"][1]) < 0.1


def test_initialisations_are_their_own_replicates():
    arms = [f"arm {k}" for k in range(5)]
    rows = [{"seed": s, "variant": arm, "k": k} for s in range(20) for k, arm in enumerate(arms)]
    metrics = pl.DataFrame([{**r, "epoch": 9, "test_accuracy": 0.5 + r["k"] / 10} for r in rows])
    start = {"epoch": 0, "form": "units", "rule": "mean", "threshold": 0.05}
    counts = pl.DataFrame([{**r, **start, "active": 10.0 ** r["k"], "any": 10.0 ** r["k"]} for r in rows])
    found = judged(list(initialisation_effects("g", counts, metrics)))
    assert found["mean"].to_list() == pytest.approx([1.0] * 4)
    assert found["p"].min() > 1 / 120  # 20 seeds of five in perfect order are five
    assert set(found["verdict"]) == {"undecided"}


@pytest.mark.parametrize(("value", "verdict"), [(-0.99, "refuted"), (0.01, "confirmed"), (0.0, "undecided")])
def test_seeds_that_are_all_equal_decide_by_their_value(value: float, verdict: str) -> None:
    equal = Effect("falls", "g", "units", "mean 0.05", "any", "d", "u", np.full(10, value))
    (row,) = judged([equal]).to_dicts()
    assert row["verdict"] == verdict
    assert row["d"] is None


def test_quick_groups_run_and_are_not_run_again(tmp_path) -> None:
    said: list[str] = []
    initial = next(plan for plan in QUICK if plan.name == "digits-init")
    run_plan(initial, tmp_path, tmp_path / "cache", said.append)
    plan = next(plan for plan in QUICK if plan.name == "digits")
    run_plan(plan, tmp_path, tmp_path / "cache", said.append)
    run_plan(plan, tmp_path, tmp_path / "cache", said.append)
    assert said[-1] == "digits: done before"
    counts = pl.read_parquet(tmp_path / "digits-emergence.parquet")
    assert set(counts["variant"]) == {"0", "0.3", "0.5", "0.7"}
    assert set(counts["rule"]) == {
        "mean", "mean_abs", "any", "majority", "per_sample", "contribution", "weight_change",
    }  # fmt: skip
    metrics = pl.read_parquet(tmp_path / "digits-metrics.parquet")
    last = metrics.filter(pl.col("epoch") == plan.epochs).sort("seed", "variant")
    assert last["weight_sparsity"].round(2).to_list() == [0.0, 0.3, 0.5, 0.7] * plan.n_seeds
    assert (tmp_path / "cache" / "digits-2.npz").exists()
    (tmp_path / "docs").mkdir()
    write_page(tmp_path, tmp_path / "docs" / "study.md")
    page = (tmp_path / "docs" / "study.md").read_text()
    for words in ("every group, rule, count and level", "near zero", "../tables.md", "64-32-16-10"):
        assert words in page
    tables = (tmp_path / "tables.md").read_text()
    for words in ("high_turn_2", "near zero", "weight_change 0.05", "Claim: E falls during training"):
        assert words in tables
    assert (tmp_path / "docs" / "study" / "digits.svg").exists()
