"""Faults in heads that are put on networks of four families, edits beside a reference, what can be pruned.

What `test_planted.py` plants into the layers of a network is not planted here again. Together they plant
every kind that an audit declares, at three strengths, in every family in which it can occur.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import TensorProto, helper
from plantednets import (
    FAMILIES,
    STRENGTHS,
    Net,
    audited_fast,
    cnn,
    node,
    quantized,
    recurrent,
    transformer,
)

from emergraph.analysis.audit.audit import AuditResult, audit_model
from emergraph.analysis.audit.kinds import AUDIT_KINDS, Section
from emergraph.analysis.audit.subject import Given

WIDE = {
    "cnn": lambda: cnn(width=24),
    "transformer": transformer,
    "recurrent": lambda: recurrent(width=24),
    "quantized": lambda: quantized(width=32),
}
FEATURES = {
    "cnn": ("relu3", 24),
    "transformer": ("pooled", 12),
    "recurrent": ("relu1", 24),
    "quantized": ("relu2", 32),
}
"""The last hidden values of each family, one vector for each sample."""
IN_LAYERS = frozenset(
    (
        *("DEAD-UNREACHED", "DEAD-UNREAD", "DEAD-OUTPUT", "DEAD-SILENT", "DEAD-INPUT", "DEAD-INITIALIZER"),
        *("DEAD-OPERATION", "NUM-NONFINITE", "NUM-SUBNORMAL", "NUM-FLOAT16-WEIGHT", "NUM-TRAINING"),
        *("NUM-RANDOM", "TWIN-UNITS", "IDENTITY-OPERATION", "HIDDEN-TEXT", "HIDDEN-FILE", "UNUSED-BULK"),
    )
)
"""What `test_planted.py` plants, in every family."""
CANNOT = {
    ("NUM-DEAD-GATE", family): "no recurrent cell, and so no gate"
    for family in FAMILIES
    if family != "recurrent"
}
"""Kinds that cannot occur in a family, with the reason."""

Places = set[str] | Mapping[str, list[int]]
"""Names of tensors, operations or outputs; or units by layer."""


@dataclass(frozen=True)
class Heads:
    """Heads on the last hidden values of a network."""

    net: Net
    rng: np.random.Generator

    def dense(
        self, name: str, units: int = 16, *, source: str = "", width: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Put a dense layer there; return its weights and biases, which may be changed."""
        source, width = (source, width) if source else FEATURES[self.net.family]
        weights = (self.rng.standard_normal((units, width)) / np.sqrt(width)).astype(np.float32)
        bias = (0.1 * self.rng.standard_normal(units)).astype(np.float32)
        self.net.weights |= {f"{name}_w": weights, f"{name}_b": bias}
        self.net.nodes.append(node("Gemm", [source, f"{name}_w", f"{name}_b"], name, transB=1))
        return weights, bias

    def end(self, name: str, units: int = 16, op: str = "") -> str:
        """Give out a head, after an operation of one input; return the name of the output."""
        last = f"{name}_{op.lower()}" if op else name
        if op:
            self.net.nodes.append(node(op, [name], last))
        self.net.outputs.append((last, ["N", units], TensorProto.FLOAT))
        return last

    def codes(self, name: str, values: np.ndarray, scale: float = 0.01) -> None:
        """Store the weights of a head as codes of eight bits, with one scale."""
        self.net.weights |= {f"{name}_q": values.astype(np.int8), f"{name}_s": np.float32(scale)}
        del self.net.weights[f"{name}_w"]
        place = self.net.nodes.index(self.net.node(name))
        self.net.nodes.insert(place, node("DequantizeLinear", [f"{name}_q", f"{name}_s"], f"{name}_w"))


def plant_given(heads: Heads, n: int) -> dict[str, Places]:
    """Plant what an audit finds on inputs that were given, or without any."""
    net, first, found = heads.net, list(range(n)), {}
    for k in range(n):
        heads.dense(f"first{k}")
        heads.dense(f"second{k}", 4, source=f"first{k}", width=16)
        heads.end(f"second{k}", 4)
        for name in (f"left{k}", f"right{k}"):
            heads.dense(name, 32)
            heads.end(name, 32)
        net.weights[f"right{k}_w"], net.weights[f"right{k}_b"] = (
            net.weights[f"left{k}_{x}"].copy() for x in "wb"
        )
        heads.dense(f"normed{k}")
        _norm(heads, f"normed{k}")
    found["LINEAR-CHAIN"] = {f"{name}{k}" for k in first for name in ("first", "second")}
    found["TWIN-LAYERS"] = {f"{name}{k}" for k in first for name in ("left", "right")}
    found["STORED-TWICE"] = {f"{name}{k}_w" for k in first for name in ("left", "right")}
    found["FOLDABLE-NORM"] = {f"normed{k}_norm" for k in first}
    heads.dense("still")
    net.nodes.append(node("Tanh", ["still"], "bounded"))
    _norm(heads, "bounded")[first] = 0
    found["NUM-VARIANCE"] = {"bounded_norm": first}
    heads.dense("sure")[1][first] = 20.0 * n
    heads.end("sure", op="Sigmoid")
    found["NUM-SATURATED"] = {"sure": first}
    heads.dense("large")[1][first] = 1e5 * 10**n
    heads.end("large")
    found["NUM-FLOAT16-ACTIVATION"] = {"large": first}
    weights, _ = heads.dense("factors", 24)
    weights[:] = heads.rng.standard_normal((24, n)) @ heads.rng.standard_normal((n, weights.shape[1]))
    heads.end("factors", 24)
    found["LOW-RANK"] = {"factors_w"}
    heads.dense("lying")[1][first] = -1e3
    found["DEAD-FLAT-OUTPUT"] = {heads.end("lying", op="Relu")}
    heads.dense("root")[1][:] = [-100.0 if unit < n else 100.0 for unit in range(16)]
    found["NUM-NAN-OUTPUT"] = {heads.end("root", op="Sqrt")}
    heads.dense("odd", 64)[0][9] *= 10.0 ** (n + 1)
    heads.end("odd", 64)
    found["ODD-UNIT"] = {"odd": [9]}
    heads.dense("faint")[0][first] *= 1e-3 / 10**n
    heads.end("faint")
    found["FAINT-UNIT"] = {"faint": first}
    _plant_codes(heads, n)
    found |= {"QUANT-UNUSED": {"few_q"}, "QUANT-CLIPPED": {"cut_q"}, "QUANT-ACTIVATION": {"narrow"}}
    if net.family == "recurrent":
        net.weights["wi"][0, first] = net.weights["wr"][0, first] = 0
        found["NUM-DEAD-GATE"] = {"lstm": first}
    return found


def _norm(heads: Heads, source: str) -> np.ndarray:
    """Put a batch normalisation on 16 units and give it out; return its variances."""
    for name in ("scale", "shift", "mean", "var"):
        heads.net.weights[f"{source}_{name}"] = (0.5 + heads.rng.random(16)).astype(np.float32)
    inputs = [source, *(f"{source}_{name}" for name in ("scale", "shift", "mean", "var"))]
    heads.net.nodes.append(node("BatchNormalization", inputs, f"{source}_norm"))
    heads.end(f"{source}_norm")
    return heads.net.weights[f"{source}_var"]


def _plant_codes(heads: Heads, n: int) -> None:
    for name, spread in (("few", 20.0 / n), ("cut", 300.0 * n)):
        weights, _ = heads.dense(name)
        heads.codes(name, np.clip(np.round(weights / np.abs(weights).max() * spread), -127, 127))
        heads.end(name)
    source, width = FEATURES[heads.net.family]
    heads.net.weights |= {"step": np.float32(1e-4 / 10**n), "zero": np.int8(0)}
    heads.net.nodes.append(node("QuantizeLinear", [source, "step", "zero"], "narrow"))
    heads.net.nodes.append(node("DequantizeLinear", ["narrow", "step", "zero"], "widened"))
    heads.dense("behind", source="widened", width=width)
    heads.end("behind")


def plant_random(heads: Heads, n: int) -> dict[str, Places]:
    """Plant what an audit finds on random inputs."""
    net, first = heads.net, list(range(n))
    weights, _ = heads.dense("most")
    weights[0, first] = np.finfo(np.float32).max
    heads.end("most")
    heads.dense("quiet")[1][first] = -1e6 * n
    net.nodes.append(node("Relu", ["quiet"], "quieter"))
    heads.dense("after", source="quieter", width=16)
    heads.end("after")
    net.weights["low"] = np.float32(-1e30)
    net.nodes.append(node("ReduceMax", [FEATURES[net.family][0]], "top", keepdims=0))
    net.nodes.append(node("Greater", ["top", "low"], "whether"))
    for k in first:
        then, other = (
            helper.make_graph(
                [helper.make_node(op, [FEATURES[net.family][0]], [f"{op}{k}"])],
                f"{op}{k}",
                [],
                [helper.make_tensor_value_info(f"{op}{k}", TensorProto.FLOAT, None)],
            )
            for op in ("Neg", "Abs")
        )
        net.nodes.append(node("If", ["whether"], f"chosen{k}", then_branch=then, else_branch=other))
        net.outputs.append((f"chosen{k}", ["N", FEATURES[net.family][1]], TensorProto.FLOAT))
    words = heads.rng.standard_normal(8192).astype(np.float32).view(np.uint32) & ~np.uint32(0xFF)
    net.weights["coded"] = (words | heads.rng.integers(0, 8 * 2**n, 8192).astype(np.uint32)).view(np.float32)
    net.nodes.append(node("Neg", ["coded"], "carried"))
    net.outputs.append(("carried", [8192], TensorProto.FLOAT))
    return {
        "NUM-LIMIT": {"most_w"},
        "DEAD-SILENT-RANDOM": {"quiet": first},
        "DEAD-BRANCH": {f"chosen{k}" for k in first},
        "HIDDEN-BITS": {"coded"},
    }


def plant_edits(heads: Heads, n: int) -> tuple[dict[str, Places], Net]:
    """Plant what an audit finds beside a reference; return where, and the reference."""
    for name in ("rounded", "edited"):
        heads.dense(name, 32)
        heads.end(name, 32)
    net = heads.net
    reference = Net(**{**vars(net), "weights": dict(net.weights), "nodes": list(net.nodes)})
    weights = net.weights["rounded_w"]
    scale = float(np.abs(weights).max()) / 127
    coarse = 10 * 2**n
    heads.codes("rounded", np.clip(np.round(weights / scale / coarse) * coarse, -127, 127), scale)
    edit = np.outer(heads.rng.standard_normal(32), heads.rng.standard_normal(weights.shape[1]))
    size = 10.0 ** (n - 3) * np.linalg.norm(net.weights["edited_w"]) / np.linalg.norm(edit)
    net.weights["edited_w"] = (net.weights["edited_w"] + size * edit).astype(np.float32)
    return {
        "QUANT-NOISE": {"rounded"},
        "QUANT-SENSITIVE": {"rounded"},
        "QUANT-OUTPUT": {"rounded"},
        "RANK-ONE-UPDATE": {"edited_w"},
    }, reference


GROUPS = {"given": plant_given, "random": plant_random, "edits": plant_edits}
PRUNABLE = frozenset(id_ for id_, kind in AUDIT_KINDS.items() if kind.section is Section.PRUNABLE)


HIDDEN = {
    "cnn": (("w1", "w2", "w3"), ("w2", "b2", 0)),
    "transformer": (("wq", "wk", "wv", "wo", "w1", "w2"), ("w1", "b1", 1)),
    "recurrent": (("wi", "wr", "w1"), ("w1", "b1", 0)),
    "quantized": (("w1_q", "w2_q"), ("w2_q", "b2", 0)),
}
"""All weights but those of the output; weights and biases of a layer whose units can go, and their axis."""


def plant_prunable(net: Net, n: int) -> tuple[int, int]:
    """Make a share of all weights next to nothing but those of the output layer, and some units whole.

    Returns:
        How many weights, how many units.
    """
    rng = np.random.default_rng(n)
    tensors, (weight, bias, axis) = HIDDEN[net.family]
    units = 4 * n
    n_weights = 0
    for name in tensors:
        values = net.weights[name]
        little = rng.random(values.shape) < 0.35 + 0.15 * n
        if name == weight:
            np.moveaxis(little, axis, 0)[:units] = True
        sign = np.where(values < 0, -1, 1).astype(values.dtype)
        if values.dtype == np.int8:
            net.weights[name] = np.where(little, sign, 100 * sign)
        else:
            net.weights[name] = np.where(little, 1e-5 * sign, values)
        n_weights += int(little.sum())
    net.weights[bias][:units] = 0
    net.weights[net.node("y").input[2]][:] = 0  # what does not depend on weights hides what they do
    return n_weights, units


def _planted(group: str, family: str, strength: int) -> tuple[Net, dict[str, Places], Net | None]:
    net = WIDE[family]()
    made = GROUPS[group](Heads(net, np.random.default_rng(strength)), strength)
    places, reference = made if isinstance(made, tuple) else (made, None)
    return net, places, reference


def _check(result: AuditResult, kind: str, places: Places) -> None:
    found = [one for one in result.findings if one.id == kind]
    if isinstance(places, Mapping):
        for layer, positions in places.items():
            said = {
                p
                for one in found
                for name, units in one.units.items()
                if name.startswith(layer)
                for p in units
            }
            exact = kind != "DEAD-SILENT-RANDOM"  # others may happen to be silent, too
            assert said == set(positions) if exact else said >= set(positions), (kind, layer, found)
        return
    told = " ".join(one.sentence for one in found)
    named = {name for one in found for name in (*one.operations, *one.tensors, *one.units)}
    named |= {name for one in found for name in one.evidence.get("branches", ())}
    assert all(name in named or name in told or any(name in other for other in named) for name in places), (
        kind,
        found,
    )


def _cases() -> list[object]:
    """One group of each family at one strength; the others take their time in `make test-models`."""
    return [
        pytest.param(group, family, n, marks=() if i == j % 3 and n == j % 3 + 1 else pytest.mark.families)
        for i, group in enumerate(GROUPS)
        for j, family in enumerate(FAMILIES)
        for n in STRENGTHS
    ]


@pytest.mark.parametrize(("group", "family", "strength"), _cases())
def test_faults_in_heads_are_found_where_they_are(tmp_path, group, family, strength):
    net, places, reference = _planted(group, family, strength)
    given = Given(inputs={} if group == "random" else net.samples)
    beside = {} if reference is None else {"reference": reference.save(tmp_path / "reference.onnx")}
    result = audited_fast(net.save(tmp_path / "net.onnx"), given, **beside)
    for kind, where in places.items():
        _check(result, kind, where)


@pytest.mark.parametrize(
    ("family", "strength"),
    [
        pytest.param(family, n, marks=() if (family, n) == ("quantized", 2) else pytest.mark.families)
        for family in FAMILIES
        for n in STRENGTHS
    ],
)
def test_what_is_next_to_nothing_can_be_pruned_and_what_is_not_is_fragile(tmp_path, family, strength):
    net = WIDE[family]()
    planted = plant_prunable(net, strength)
    given = Given(inputs=net.samples)
    result = audit_model(net.save(tmp_path / "net.onnx"), given, only=[Section.PRUNABLE])
    found = {one.id: one for one in result.findings if one.id in PRUNABLE}
    assert found.keys() == PRUNABLE
    for kind, n in zip(("PRUNABLE-WEIGHTS", "PRUNABLE-UNITS"), planted, strict=True):
        of = int(
            re.search(r"of the ([\d,]+) (weights|hidden units)", found[kind].sentence)[1].replace(",", "")
        )
        level = max(one["level"] for one in found[kind].evidence["scopes"])
        assert level >= int(20 * n / of) / 20, found[kind].sentence
    assert set(found["FRAGILE-LAYERS"].units) == {"y"}, found["FRAGILE-LAYERS"].sentence


def test_every_kind_is_planted_in_every_family_in_which_it_can_occur():
    for family in FAMILIES:
        planted = {kind for group in GROUPS for kind in _planted(group, family, 1)[1]} | IN_LAYERS | PRUNABLE
        cannot = {kind for kind, where in CANNOT if where == family}
        assert not planted & cannot
        assert planted | cannot == set(AUDIT_KINDS)
