"""Faults of each kind, at three strengths, in four families of networks: each is found where it is."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from plantednets import Net, audited_fast, cnn, node, planted_cases, quantized, recurrent, transformer

from emergraph.analysis.audit.audit import AuditResult
from emergraph.analysis.audit.kinds import Grade
from emergraph.analysis.audit.subject import AGREEMENT, Given, elementwise
from emergraph.analysis.audit.suspicious import FALSE_DISCOVERIES, discoveries, p_values, robust_z

WORDS = "Meet me at the usual place when the clock of the town hall strikes seven, and bring the papers. "


@dataclass(frozen=True)
class Place:
    """Where in a network faults are planted: a hidden layer, what reads it, and the output layer."""

    layer: str
    weight: str
    axis: int
    bias: str
    reader: str
    reader_axis: int
    output: str
    output_axis: int
    output_bias: str
    relu: str


FAMILIES = {
    "cnn": (lambda: cnn(width=24), Place("conv2", "w2", 0, "b2", "w3", 1, "w4", 0, "b4", "relu2")),
    "transformer": (transformer, Place("dense1", "w1", 1, "b1", "w2", 0, "w3", 0, "b3", "relu1")),
    "recurrent": (
        lambda: recurrent(width=24),
        Place("dense1", "w1", 0, "b1", "w2", 1, "w2", 0, "b2", "relu1"),
    ),
    "quantized": (
        lambda: quantized(width=32),
        Place("dense2", "w2_q", 0, "b2", "w3_q", 1, "w3_q", 0, "b3", "relu2"),
    ),
}


def _rows(net: Net, place: Place) -> np.ndarray:
    return np.moveaxis(net.weights[place.weight], place.axis, 0)


def plant_structure(net: Net, place: Place, n: int) -> dict[str, list[int]]:
    """Plant n faults of each kind that the graph shows; return where."""
    unreached, unread = list(range(n)), list(range(n, 2 * n))
    silent = list(range(2 * n, 3 * n))
    kept, twins = list(range(3 * n, 4 * n)), list(range(4 * n, 5 * n))
    rows = _rows(net, place)
    rows[unreached] = 0
    rows[twins] = rows[kept]
    net.weights[place.bias][twins] = net.weights[place.bias][kept]
    net.weights[place.bias][silent] = -50.0 * 10**n
    np.moveaxis(net.weights[place.reader], place.reader_axis, 0)[unread] = 0
    outputs = list(range(n))
    np.moveaxis(net.weights[place.output], place.output_axis, 0)[outputs] = 0
    net.weights["spare"] = np.ones((n, 5), np.float32)
    for k in range(n):
        net.put_after(place.relu if k == 0 else f"same{k - 1}", node("Identity", [], f"same{k}"))
    return {
        "DEAD-UNREACHED": unreached,
        "DEAD-UNREAD": unread,
        "DEAD-SILENT": silent,
        "TWIN-UNITS": sorted(kept + twins),
        "DEAD-OUTPUT": outputs,
    }


def _check_smaller(result: AuditResult, path: Path, out: Path, net: Net, n: int) -> None:
    """The file that was written loads, agrees, and is smaller by what was promised."""
    rng = np.random.default_rng(99)
    inputs = {name: rng.standard_normal(x.shape).astype(x.dtype) for name, x in net.samples.items()}
    if net.family == "quantized":  # what was silent on these inputs is cut, too
        inputs = net.samples
    a, b = (onnxruntime.InferenceSession(str(one)).run(None, inputs)[0] for one in (path, out))
    assert elementwise(a, b) <= AGREEMENT
    smaller = result.smaller
    model = onnx.load(out)
    values = sum(int(np.prod(p.dims)) for p in model.graph.initializer)
    assert values == smaller.values_after < smaller.values_before
    said = sum(entry.ByteSize() for entry in model.metadata_props)  # of what was tested
    assert out.stat().st_size == smaller.bytes_after < smaller.bytes_before + said
    cut = {"DEAD-UNREACHED or DEAD-UNREAD": 2 * n, "IDENTITY-OPERATION": n}
    cut |= {} if net.family == "quantized" else {"TWIN-UNITS": n}  # codes of two units have no sum
    assert {kind: smaller.applied.get(kind) for kind in cut} == cut


@pytest.mark.parametrize(("family", "strength"), planted_cases())
def test_faults_of_structure_are_found_where_they_are(tmp_path, family, strength):
    make, place = FAMILIES[family]
    net = make()
    planted = plant_structure(net, place, strength)
    path, out = net.save(tmp_path / "net.onnx"), tmp_path / "smaller.onnx"
    also_tested = family == "quantized"  # sums in another order, so that it is not equal bit by bit
    result = audited_fast(path, Given(inputs=net.samples), write=out, also_tested=also_tested)
    _check_smaller(result, path, out, net, strength)
    found = {}
    for one in result.findings:
        for layer, positions in one.units.items():
            found.setdefault((one.id, layer), set()).update(positions)
    for id_, positions in planted.items():
        layer = "y" if id_ == "DEAD-OUTPUT" else place.layer
        if id_ == "DEAD-SILENT":  # others may happen to be silent, too
            assert set(positions) <= found[id_, layer], id_
        else:
            assert found[id_, layer] == set(positions), id_
    by_id = {one.id: one for one in result.findings}
    assert by_id["DEAD-INITIALIZER"].tensors == ["spare"]
    assert set(by_id["IDENTITY-OPERATION"].operations) == {f"same{k}" for k in range(strength)}
    tested = {one.id for one in result.findings if one.grade is Grade.TESTED}
    assert tested <= {"DEAD-SILENT", "DEAD-FLAT-OUTPUT", "LOW-RANK"}


def plant_values(net: Net, place: Place, n: int) -> dict[str, str]:
    """Plant values of each kind that are wrong in themselves; return in which tensor."""
    net.weights["b1" if place.bias != "b1" else place.output_bias][:n] = np.nan
    broken = "b1" if place.bias != "b1" else place.output_bias
    bias = net.weights[place.bias]
    bias[:n] = 1e-40
    bias[n : 2 * n] = 70_000.0 * 10**n
    text = (WORDS * 3)[: 60 * n].encode()
    note = np.frombuffer(text, np.uint8)
    net.weights["note"] = np.resize(note, (len(note) // 4) * 4).view(np.float32).copy()
    net.nodes.append(node("Identity", ["note"], "noted"))
    net.outputs.append(("noted", [len(note) // 4], 1))
    return {
        "NUM-NONFINITE": broken,
        "NUM-SUBNORMAL": place.bias,
        "NUM-FLOAT16-WEIGHT": place.bias,
        "HIDDEN-TEXT": "note",
    }


@pytest.mark.parametrize(("family", "strength"), planted_cases())
def test_faults_of_values_are_found_in_their_tensor(tmp_path, family, strength):
    make, place = FAMILIES[family]
    net = make()
    planted = plant_values(net, place, strength)
    result = audited_fast(net.save(tmp_path / "net.onnx"))
    by_id = {one.id: one for one in result.findings}
    for id_, tensor in planted.items():
        assert tensor in by_id[id_].tensors, id_
    assert by_id["NUM-NONFINITE"].evidence["values"] == strength


def plant_encoding(net: Net, place: Place, n: int) -> dict[str, object]:
    """Plant faults of the file, of inputs, of chance and of what is hidden; return what names them."""
    rng = np.random.default_rng(n)
    net.inputs += [(f"spare{k}", ["N", 3], TensorProto.FLOAT) for k in range(n)]
    net.nodes += [node("Neg", [place.relu], f"idle{k}") for k in range(n)]
    for k in range(n):
        net.put_after(place.relu, node("Add", [f"noise{k}"], f"noisy{k}"))
        noise = node("RandomNormalLike", [place.relu], f"noise{k}")
        net.nodes.insert(net.nodes.index(net.node(f"noisy{k}")), noise)
        net.weights |= {f"ratio{k}": np.array(0.2 * (k + 1), np.float32), f"on{k}": np.array(True)}
        net.put_after(place.relu, node("Dropout", [f"ratio{k}", f"on{k}"], f"drop{k}"))
    payload = rng.standard_normal(600).astype(np.float32).view(np.uint8).copy()
    for k in range(n):
        payload[500 * k + 1 : 500 * k + 9] = np.frombuffer(b"\x7fELF\x02\x01\x01\x00", np.uint8)
    net.weights["bulk"] = rng.standard_normal(16_384 * n).astype(np.float32)
    net.weights["payload"] = payload.view(np.float32)
    net.nodes.append(node("Neg", ["payload"], "carried"))
    net.outputs.append(("carried", [600], TensorProto.FLOAT))
    return {
        "DEAD-INPUT": {f"spare{k}" for k in range(n)},
        "DEAD-OPERATION": {f"idle{k}" for k in range(n)},
        "NUM-TRAINING": {f"drop{k}" for k in range(n)},
        "NUM-RANDOM": {f"noise{k}" for k in range(n)},
        "HIDDEN-FILE": {"payload"},
        "UNUSED-BULK": {"bulk"},
    }


@pytest.mark.parametrize(("family", "strength"), planted_cases())
def test_faults_of_the_file_are_found_where_they_are(tmp_path, family, strength):
    make, place = FAMILIES[family]
    net = make()
    planted = plant_encoding(net, place, strength)
    result = audited_fast(net.save(tmp_path / "net.onnx"))
    for id_, names in planted.items():
        found = [one for one in result.findings if one.id == id_]
        said = {
            name for one in found for name in (*one.operations, *one.tensors, *one.evidence.get("inputs", ()))
        }
        told = " ".join(one.sentence for one in found)
        assert all(name in said or f"'{name}'" in told for name in names), (id_, names, said, told)


def _share_found(units: int, deviations: float, draws: int = 200) -> float:
    """How often a unit so many robust deviations above its layer of normal log norms is found."""
    rng = np.random.default_rng([units, int(deviations)])
    hits = 0
    for _ in range(draws):
        values = rng.standard_normal(units)
        values[0] = deviations
        hits += bool(discoveries(p_values(robust_z(values)), FALSE_DISCOVERIES)[0])
    return hits / draws


@pytest.mark.parametrize(("units", "deviations"), [(100, 18), (1000, 28), (20_000, 55)])
def test_an_odd_unit_is_found_at_the_strength_that_the_page_states(units, deviations):
    draws = 200 if units < 10_000 else 40
    assert _share_found(units, deviations, draws) >= 0.95
    assert _share_found(units, deviations / 3, draws) <= 0.05


def test_float_and_codes_of_one_network_have_the_same_findings_about_it(tmp_path):
    results = []
    for coded in (True, False):
        net = quantized(width=32, coded=coded)
        name = "w2_q" if coded else "w2"
        net.weights[name][[3, 4]] = 0
        net.weights[name][9] = net.weights[name][8]
        net.weights["b2"][9] = net.weights["b2"][8]
        net.weights["w3_q" if coded else "w3"][:, 20] = 0
        path = net.save(tmp_path / f"{coded}.onnx")
        results.append(audited_fast(path, Given(inputs=net.samples)))
    fingerprints = [{f.fingerprint for f in r.about("network")} for r in results]
    assert fingerprints[0] == fingerprints[1]
    assert {f.id for f in results[0].about("network")} >= {"DEAD-UNREACHED", "DEAD-UNREAD", "TWIN-UNITS"}


def test_another_export_of_the_network_has_the_same_fingerprints(tmp_path):
    """Other names, another order of initializers, a dense layer as a product and a sum."""
    results = []
    for renamed in (False, True):
        net = quantized(width=32, coded=False)
        net.weights["w2"][[3, 4]] = 0
        net.weights["w2"][9] = net.weights["w2"][8]
        net.weights["b2"][9] = net.weights["b2"][8]
        if renamed:
            net.weights["w2"] = np.ascontiguousarray(net.weights["w2"].T)
            dense = net.nodes.index(net.node("dense2"))
            net.nodes[dense : dense + 1] = [
                node("MatMul", ["relu1", "w2"], "product"),
                node("Add", ["product", "b2"], "dense2"),
            ]
            for one in net.nodes:
                one.name = f"/other/{one.name}"
            net.weights = dict(reversed(net.weights.items()))
        results.append(audited_fast(net.save(tmp_path / f"{renamed}.onnx"), Given(inputs=net.samples)))
    fingerprints = [{f.fingerprint for f in r.about("network")} for r in results]
    assert fingerprints[0] == fingerprints[1]
