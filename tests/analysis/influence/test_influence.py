"""Knock-outs of small networks, whose answers can be computed by hand."""

import numpy as np
import onnx
import onnxruntime as ort
import polars as pl
import pytest
from nets import Net
from onnx import numpy_helper

import emergraph
from emergraph.analysis.influence import knockouts, layerrun
from emergraph.analysis.influence.options import Baseline, InfluenceOptions, ModelRunOptions
from emergraph.analysis.influence.slots import found_fixed_layout, found_layout
from emergraph.analysis.influence.target import Behaviour, Target
from emergraph.analysis.influence.views import influence_view
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.runtime.process import ModelProcess

RNG = np.random.default_rng(7)


@pytest.fixture
def asked(tmp_path):
    """Export a network, and knock out on given samples."""

    def run(net, *, patch=None, shapes=None, graph=None, **options):
        arrays = options.pop("arrays")
        model = tmp_path / "net.onnx"
        onnx.save(net.model(), model)
        np.savez(tmp_path / "inputs.npz", **arrays)
        found = graph or emergraph.export(model, tmp_path / "net.duckdb", **(shapes or {}))
        if patch is not None:
            np.savez(tmp_path / "patch.npz", **patch)
            options["patch"] = tmp_path / "patch.npz"
        runs = ModelRunOptions(model=model, inputs=tmp_path / "inputs.npz")
        return found, found.analyse("influence", runs, InfluenceOptions(**options))

    return run


def relu_net(rows=2):
    """3 inputs, 4 rectified units, 2 outputs, with the matrices."""
    net = Net()
    first, second = (RNG.standard_normal(s).astype(np.float32) for s in ((3, 4), (4, 2)))
    x = net.input(rows, 3)
    hidden = net.op("Relu", net.op("MatMul", x, net.value(first), name="hidden"))
    net.output(net.op("MatMul", hidden, net.value(second), name="head"))
    return net, x, first, second


def hidden_of(x, first):
    return np.maximum(x @ first, 0)


def rows_of(result, what="unit"):
    return result.frame.filter(pl.col("what") == what)


@pytest.mark.parametrize("baseline", list(Baseline))
def test_a_unit_of_a_dense_layer(asked, baseline):
    net, name, first, second = relu_net()
    x = RNG.standard_normal((6, 3)).astype(np.float32)
    _, result = asked(net, arrays={name: x}, baseline=baseline)
    hidden = hidden_of(x, first)
    value = {
        Baseline.MEAN: np.broadcast_to(hidden.mean(0), hidden.shape),
        Baseline.ZERO: np.zeros_like(hidden),
        Baseline.RESAMPLE: np.roll(hidden, -1, axis=0),
    }[baseline]
    clean = hidden @ second
    rows = rows_of(result)
    assert rows.height == 4
    for unit, row in enumerate(rows.iter_rows(named=True)):
        changed = (value[:, unit] - hidden[:, unit])[:, None] * second[unit]
        effects = np.square(changed).mean(1)
        assert row["effect"] == pytest.approx(effects.mean(), rel=1e-4, abs=1e-9)
        assert row["largest"] == pytest.approx(effects.max(), rel=1e-4, abs=1e-9)
        best = clean.argmax(1)
        assert row["target_change"] == pytest.approx(changed[np.arange(6), best].mean(), rel=1e-4, abs=1e-6)
        decided = ((clean + changed).argmax(1) != best).mean()
        assert row["decisions"] == pytest.approx(decided)
        assert row["n"] == 6
    whole = rows_of(result, "layer").row(0, named=True)
    assert whole["n_units"] == 4
    expected = np.square((value - hidden) @ second).mean(1)
    assert whole["effect"] == pytest.approx(expected.mean(), rel=1e-4, abs=1e-9)
    assert whole["low"] is None or whole["low"] <= whole["effect"] <= whole["high"]
    assert "agree with single runs" in result.runs["hidden"]


def test_one_number_of_the_output(asked):
    net, name, first, second = relu_net()
    x = RNG.standard_normal((5, 3)).astype(np.float32)
    for target in ("head.out:1", "head.out[1]", "head.out:-1"):
        _, result = asked(net, arrays={name: x}, baseline=Baseline.ZERO, target=target)
        expected = -(hidden_of(x, first) * second[:, 1]).mean(0)
        np.testing.assert_allclose(rows_of(result)["target_change"], expected, rtol=1e-4, atol=1e-6)
    for wrong in ("head.out:2", "head.out[0,0]", "nothing"):
        with pytest.raises(UsageError, match=r"head\.out"):
            asked(net, arrays={name: x}, target=wrong)


def test_probabilities_are_compared_by_their_divergence(asked):
    net = Net()
    x = net.input(2, 3)
    first, second = (RNG.standard_normal(s).astype(np.float32) for s in ((3, 4), (4, 3)))
    hidden = net.op("Relu", net.op("MatMul", x, net.value(first), name="hidden"))
    net.output(net.op("Softmax", net.op("MatMul", hidden, net.value(second), name="head")))
    samples = RNG.standard_normal((4, 3)).astype(np.float32)
    _, result = asked(net, arrays={x: samples}, baseline=Baseline.ZERO, units="layer = 'hidden'")

    def softmax(z):
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    acts = hidden_of(samples, first)
    clean = softmax(acts @ second)
    for unit, row in enumerate(rows_of(result).iter_rows(named=True)):
        knocked = acts.copy()
        knocked[:, unit] = 0
        found = softmax(knocked @ second)
        expected = (clean * np.log(clean / found)).sum(1).mean()
        assert row["measure"] == "kl"
        assert row["effect"] == pytest.approx(expected, rel=1e-3, abs=1e-7)


def conv_net():
    net = Net()
    x = net.input("n", 1, 4, 4)
    kernel, head = RNG.standard_normal((3, 1, 1, 1)), RNG.standard_normal((48, 2))
    bent = net.op("Relu", net.op("Conv", x, net.value(kernel.astype(np.float32)), name="conv"))
    net.output(net.op("MatMul", net.op("Flatten", bent), net.value(head.astype(np.float32)), name="head"))
    return net, x, kernel, head


def test_one_position_of_a_channel(asked):
    net, name, kernel, head = conv_net()
    x = RNG.standard_normal((3, 1, 4, 4)).astype(np.float32)
    _, result = asked(
        net, arrays={name: x}, baseline=Baseline.ZERO, at=(1, -1), units="layer = 'conv'", target="head.out:0"
    )
    hidden = np.maximum(x * kernel.reshape(1, 3, 1, 1), 0)
    weights = head[:, 0].reshape(3, 4, 4)
    expected = -(hidden[:, :, 1, 3] * weights[:, 1, 3]).mean(0)
    np.testing.assert_allclose(rows_of(result)["target_change"], expected, rtol=1e-4, atol=1e-6)
    _, wrong = asked(net, arrays={name: x}, at=(1,), units="layer = 'conv'")
    assert wrong.left_out["conv"] == "it has 2 axes of positions, and --at names 1"


def test_patching_takes_the_same_sample_of_another_file(asked):
    net, name, first, second = relu_net()
    x, other = RNG.standard_normal((2, 4, 3)).astype(np.float32)
    _, result = asked(net, arrays={name: x}, patch={name: other})
    changed = (hidden_of(other, first) - hidden_of(x, first))[:, :, None] * second
    expected = np.square(changed).mean(2).mean(0)
    np.testing.assert_allclose(rows_of(result)["effect"], expected, rtol=1e-4, atol=1e-9)
    whole = rows_of(result, "layer").row(0, named=True)
    moved = hidden_of(other, first) @ second - hidden_of(x, first) @ second
    assert whole["effect"] == pytest.approx(np.square(moved).mean(), rel=1e-4)


def test_a_scale_over_the_whole_batch_is_found_out(asked):
    """Slots side by side would share the largest value, as in dynamic quantization."""
    net = Net()
    x = net.input("n", 3)
    first, second = (RNG.standard_normal(s).astype(np.float32) for s in ((3, 4), (4, 2)))
    hidden = net.op("Relu", net.op("MatMul", x, net.value(first), name="hidden"))
    largest = net.op("Add", net.op("ReduceMax", hidden, keepdims=0), net.value(np.float32(1)))
    net.output(net.op("Div", net.op("MatMul", hidden, net.value(second), name="head"), largest))
    samples = RNG.standard_normal((5, 3)).astype(np.float32)
    _, result = asked(net, arrays={x: samples}, baseline=Baseline.ZERO, units="layer = 'hidden'")
    assert result.runs["hidden"] == "one run for each"
    acts = hidden_of(samples, first)
    for unit, row in enumerate(rows_of(result).iter_rows(named=True)):
        knocked = acts * (np.arange(4) != unit)
        clean, found = ([h @ second / (h.max() + 1) for h in group] for group in (acts, knocked))
        effects = [np.square(a - b).mean() for a, b in zip(clean, found, strict=True)]
        assert row["effect"] == pytest.approx(np.mean(effects), rel=1e-3, abs=1e-8)


def test_a_fixed_batch_is_filled_with_knockouts(asked):
    """It takes four rows, and only four: they are laid out in pairs."""
    net = Net()
    first, second = (RNG.standard_normal(s).astype(np.float32) for s in ((3, 4), (4, 2)))
    x = net.input(4, 3)
    back = net.op("Reshape", net.op("Reshape", x, net.ints(2, 2, 3)), net.ints(4, 3))
    hidden = net.op("Relu", net.op("MatMul", back, net.value(first), name="hidden"))
    net.output(net.op("MatMul", hidden, net.value(second), name="head"))
    samples = RNG.standard_normal((6, 3)).astype(np.float32)
    _, result = asked(net, arrays={x: samples}, baseline=Baseline.ZERO)
    assert result.runs["hidden"] == "up to 4 slots of the fixed batch; 3 agree with single runs"
    expected = np.square(hidden_of(samples, first)[:, :, None] * second).mean(2).mean(0)
    np.testing.assert_allclose(rows_of(result)["effect"], expected, rtol=1e-4, atol=1e-9)
    _, one = asked(net, arrays={x: samples[:1]}, baseline=Baseline.ZERO)
    expected = np.square(hidden_of(samples[:1], first)[0][:, None] * second).mean(1)
    np.testing.assert_allclose(rows_of(one)["effect"], expected, rtol=1e-4, atol=1e-9)


def test_what_never_moves_the_output_is_structure_only(asked):
    net = Net()
    x = net.input("n", 3)
    second = RNG.standard_normal((4, 2)).astype(np.float32)
    first = RNG.standard_normal((3, 4)).astype(np.float32)
    bias = np.array([0, 0, -100, 0], np.float32)  # the third unit is silent on these samples
    hidden = net.op(
        "Relu", net.op("Add", net.op("MatMul", x, net.value(first), name="hidden"), net.value(bias))
    )
    net.output(net.op("MatMul", hidden, net.value(second), name="head"))
    _, result = asked(net, arrays={x: RNG.standard_normal((5, 3)).astype(np.float32)})
    silent = result.structure_only
    assert silent["unit"].to_list() == [3 + 2]
    assert silent["n"].to_list() == [5]
    said = influence_view(result).finding
    whole = rows_of(result, "layer")["effect"].item()
    assert said == (
        f"head.out changes most without layer hidden: {whole:.3g} squared on average over 5 samples, "
        "replaced by each unit's mean over the 5 samples and their positions; 1 of 4 units never moved it."
    )


def test_a_short_budget_gives_what_moves_much_more_samples(asked, monkeypatch):
    net, name, first, second = relu_net()
    monkeypatch.setattr(knockouts, "FEWEST_SURVIVORS", 1)
    monkeypatch.setattr(knockouts.Bench, "_estimate", lambda _self, units: len(units) * 1.0)
    x = RNG.standard_normal((16, 3)).astype(np.float32)
    _, result = asked(net, arrays={name: x}, baseline=Baseline.ZERO, budget=20.0)
    rows = rows_of(result).sort("n", descending=True)
    assert rows["n"][0] > rows["n"][-1] >= 1
    best = np.square(hidden_of(x, first)[:, :, None] * second).mean(2).mean(0).argmax()
    assert rows["unit"][0] == 3 + best
    _, whole = asked(net, arrays={name: x}, baseline=Baseline.ZERO, budget=1e4)
    assert set(rows_of(whole)["n"]) == {16}


def test_a_run_goes_on_from_an_earlier_one(asked, monkeypatch):
    net, name, _, _ = relu_net()
    x = RNG.standard_normal((4, 3)).astype(np.float32)
    graph, part = asked(net, arrays={name: x}, units="layer = 'hidden' AND position < 2")
    measured = []
    measure = knockouts.Bench.measure

    def counted(self, given):
        measured.extend(one.key for one in given)
        measure(self, given)

    monkeypatch.setattr(knockouts.Bench, "measure", counted)
    _, result = asked(net, graph=graph, arrays={name: x}, resume=True)
    assert [key[2] for key in measured if key[0] == "unit"] == [2, 3]
    assert rows_of(result).height == 4
    assert rows_of(result)["effect"][0] == rows_of(part)["effect"][0]


def test_wrong_options(asked):
    net, name, _, _ = relu_net()
    one = {name: RNG.standard_normal((1, 3)).astype(np.float32)}
    with pytest.raises(UsageError, match="takes another sample, and there is one only"):
        asked(net, arrays=one, baseline=Baseline.RESAMPLE)
    with pytest.raises(UsageError, match="no unit is like that"):
        asked(net, arrays=one, units="layer = 'nothing'")
    two = {name: RNG.standard_normal((2, 3)).astype(np.float32)}
    with pytest.raises(UsageError, match="holds 1 samples; expected one for each of 2"):
        asked(net, arrays=two, patch=one)
    with pytest.raises(UsageError, match="leave out --baseline"):
        asked(net, arrays=two, patch=two, baseline=Baseline.ZERO)


def test_slots_are_found_by_what_they_hold():
    one, two = RNG.standard_normal((2, 1, 3))
    side = np.ones(2)
    alone = [{"x": one, "s": side, "n": np.array([1])}, {"x": two, "s": side, "n": np.array([1])}]
    together = {"x": np.concatenate([one, two]), "s": side, "n": np.array([2])}
    layout, sizes = found_layout(alone, together)
    assert (layout.axes["x"], layout.axes["s"], sizes) == (0, None, ["n"])
    assert found_layout(alone, together | {"x": np.concatenate([one, one])}) is None
    first, last = np.repeat(one, 3, 0), np.repeat(two, 3, 0)
    mixed = np.concatenate([one, two, two])
    assert found_fixed_layout({"x": first}, {"x": last}, {"x": mixed}, 3).axes == {"x": 0}
    assert found_fixed_layout({"x": first}, {"x": last}, {"x": first}, 3) is None


def test_a_single_number_decides_at_the_middle():
    behaviour = Behaviour(Target("y"), distribution=False)
    assert behaviour.change(np.array([0.6]), np.array([0.4])).decision == 1
    assert behaviour.change(np.array([0.6]), np.array([0.55])).decision == 0
    assert behaviour.change(np.array([3.0]), np.array([-1.0])).decision == 1


def test_an_older_model_is_refused(asked):
    net = Net(opset=8)
    x = net.input(2, 3)
    net.output(net.op("MatMul", net.op("MatMul", x, net.param(3, 4)), net.param(4, 2)))
    with pytest.raises(InvalidInputError, match="knock-outs need 9 or later"):
        asked(net, arrays={x: np.zeros((2, 3), np.float32)})


def test_slots_are_bounded_by_memory(monkeypatch, asked):
    net, name, _, _ = relu_net()
    x = RNG.standard_normal((6, 3)).astype(np.float32)
    monkeypatch.setattr(layerrun, "MOST_SLOTS", 5)
    _, few = asked(net, arrays={name: x})
    monkeypatch.setattr(layerrun, "MOST_SLOTS", 64)
    _, many = asked(net, arrays={name: x})
    assert few.runs["hidden"].startswith("up to 5 of them")
    np.testing.assert_allclose(rows_of(few)["effect"], rows_of(many)["effect"], rtol=1e-5)


def test_a_head_is_what_its_scores_weigh(asked):
    """Two heads of two features each: knocked out, the values of a head are nothing but zero."""
    net = Net()
    x = net.input("n", 3, 4)
    parts = []
    for name in ("query", "key", "value"):
        product = net.op("MatMul", x, net.param(4, 4), name=name)
        parts.append(net.op("Transpose", net.op("Reshape", product, net.ints(0, 0, 2, 2)), perm=[0, 2, 1, 3]))
    scores = net.op("MatMul", parts[0], net.op("Transpose", parts[1], perm=[0, 1, 3, 2]))
    context = net.op("MatMul", net.op("Softmax", scores, axis=-1), parts[2])
    flat = net.op("Reshape", net.op("Transpose", context, perm=[0, 2, 1, 3]), net.ints(0, 0, 4))
    net.output(net.op("MatMul", flat, net.param(4, 2), name="head"))
    data = RNG.standard_normal((5, 3, 4)).astype(np.float32)
    graph, result = asked(net, arrays={x: data}, baseline=Baseline.ZERO, only_layers=True)
    rows = rows_of(result, "head")
    layers = {row["name"]: row for row in graph.layers.iter_rows(named=True)}
    assert rows["layer"].to_list() == [layers["value"]["id"]] * 2
    assert rows["n_units"].to_list() == [2, 2]
    first = next(row["first_unit"] for row in layers.values() if row["kind"] == "score")
    assert rows["head"].to_list() == [first, first + 1]

    def outputs(model):
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {x: data})[0]

    clean = outputs(net.model())
    for head, row in enumerate(rows.iter_rows(named=True)):
        model = net.model()
        (weights,) = (t for t in model.graph.initializer if t.name == net.initializers[4].name)
        values = numpy_helper.to_array(weights).copy()
        values[:, 2 * head : 2 * head + 2] = 0
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        effects = np.square(outputs(model) - clean).mean(axis=(1, 2))
        assert row["effect"] == pytest.approx(effects.mean(), rel=1e-4)


def test_the_time_limit_is_for_each_run_and_not_for_all(asked, monkeypatch):
    """Many short runs may take longer than one run may: the command has a limit of its own."""
    net, name, _, _ = relu_net()
    run = ModelProcess.run

    def slow(self, *given, **named):
        found = run(self, *given, **named)
        self.renew(self.seconds_left - 100)  # as if it had taken so long
        return found

    monkeypatch.setattr(ModelProcess, "run", slow)
    _, result = asked(net, arrays={name: RNG.standard_normal((6, 3)).astype(np.float32)})
    assert rows_of(result).height == 4


@pytest.mark.parametrize(
    ("n", "expected"),
    [(6, ([6, 6, 6], [7, 7, 7, 7, 7, 7])), (2, ([3, 3, 3], [7, 7, 7, 7]))],
    ids=["some", "fewer than are checked"],
)
def test_what_is_compared_ran_with_as_many_rows(asked, monkeypatch, n, expected):
    """Sums of 64 rows are rounded otherwise than those of one: enough to seem to move an output."""
    net, name, _, _ = relu_net()
    rows = {}
    fetch = layerrun.LayerRun._fetch

    def counted(self, feeds):
        rows.setdefault(self, []).append(len(feeds[self._names.value]))
        return fetch(self, feeds)

    monkeypatch.setattr(layerrun.LayerRun, "_fetch", counted)
    monkeypatch.setattr(layerrun, "MOST_SLOTS", 7)
    asked(net, arrays={name: RNG.standard_normal((n, 3)).astype(np.float32)})
    alone = [1, 1, 1]  # what those together have to agree with
    assert list(rows.values()) == [[*alone, *one] for one in expected]  # checked, references, knock-outs
