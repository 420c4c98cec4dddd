"""Files that hold one network in different encodings give one graph."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.graphstore.store import open_store

pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("EMERGRAPH_MODELS") or Path.home() / ".cache" / "emergraph" / "models")
SILERO = MODELS / "silero-vad" / "silero_vad" / "data"
SAMPLE_RATE = {"sr": np.asarray(16000)}
ENCODINGS = {
    "silero_vad.onnx": SAMPLE_RATE,
    "silero_vad_16k_op15.onnx": {},
    "silero_vad_16k_sequence.onnx": {},
    "silero_vad_op18_ifless.onnx": SAMPLE_RATE,
    "silero_vad_openvino_16k.onnx": {},
}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    path = tmp_path_factory.mktemp("silero") / "silero.duckdb"
    with open_store(path, mode="create") as store:
        for name, inputs in ENCODINGS.items():
            export_onnx(SILERO / name, store, options=ExportOptions(name=name, inputs=inputs))
    with open_store(path) as store:
        yield {name: store.graph(name) for name in ENCODINGS}


def weights(graph):
    edges = graph.edges(kinds=["weight", "recurrent"])
    return edges.filter(edges["weight"].is_not_null())


def gates(graph):
    """For every memory cell the set of its gates, a gate being the multiset of weights that lead into it.

    In a fused LSTM a gate is a neuron; written out it is a junction of two neurons, one for the input and one
    for the state. Walking back from the hidden units through structural edges meets four of them per cell.
    """
    incoming = defaultdict(list)
    for dst, weight in weights(graph).select("dst", "weight").iter_rows():
        incoming[dst].append(weight)
    structural = defaultdict(set)
    edges = graph.edges(kinds=["gate", "identity"])
    for src, dst in edges.select("src", "dst").iter_rows():
        structural[dst].add(src)
    kinds = dict(graph.layers().select("id", "kind").iter_rows())
    layer_of = dict(graph.units().select("id", "layer").iter_rows())

    cells = Counter()
    for unit, layer in layer_of.items():
        if kinds[layer] in ("rnn_hidden", "gate"):
            found = gates_behind(unit, incoming, structural)
            if len(found) == 4:
                cells[frozenset(found)] += 1
    return cells


def gate_weights(unit, incoming, structural):
    """The weights that lead into a gate, or None for units that are no gates."""
    if len(incoming[unit]) == 256:
        return incoming[unit]
    parts = structural[unit]
    if len(parts) == 2 and all(len(incoming[part]) == 128 for part in parts):
        return [weight for part in parts for weight in incoming[part]]
    return None


def gates_behind(unit, incoming, structural):
    """The gates that are met first on the way back from a unit."""
    found, seen, stack = set(), set(), [unit]
    while stack:
        for source in structural[stack.pop()] - seen:
            seen.add(source)
            values = gate_weights(source, incoming, structural)
            if values is None:
                stack.append(source)
            else:
                found.add(tuple(sorted(values)))
    return found


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_has_168_448_weight_connections(graphs, name):
    """168 450 connections, less two filters of the spectrogram that are zero throughout."""
    assert len(weights(graphs[name])) == 168_448


@pytest.mark.parametrize("name", list(ENCODINGS)[1:])
def test_every_encoding_has_the_same_values(graphs, name):
    first = np.sort(weights(graphs["silero_vad.onnx"])["weight"].to_numpy())
    assert np.array_equal(np.sort(weights(graphs[name])["weight"].to_numpy()), first)


@pytest.mark.parametrize("name", list(ENCODINGS)[1:])
def test_every_encoding_has_the_same_gates(graphs, name):
    first = gates(graphs["silero_vad.onnx"])
    assert len(first) == 128
    assert gates(graphs[name]) == first


def test_the_branch_that_was_taken_is_named(graphs):
    branches = graphs["silero_vad.onnx"].summary["branches"]
    assert branches
    assert branches[0].endswith(":then")


def test_another_sample_rate_takes_the_other_branch(tmp_path):
    with open_store(tmp_path / "s.duckdb", mode="create") as store:
        options = ExportOptions(inputs={"sr": np.asarray(8000)})
        summary = export_onnx(SILERO / "silero_vad.onnx", store, options=options)
    assert summary.branches[0].endswith(":else")
    assert summary.trace is not None
    assert summary.trace.coverage == 1.0


def test_both_branches_on_request(tmp_path):
    """Both networks, 328 580 connections less four filters that are zero throughout."""
    with open_store(tmp_path / "s.duckdb", mode="create") as store:
        options = ExportOptions(inputs=SAMPLE_RATE, all_branches=True)
        summary = export_onnx(SILERO / "silero_vad.onnx", store, options=options)
    assert summary.trace is not None
    assert summary.trace.n_weight_edges == 328_576
    taken = {name.rpartition(":")[0] for name in summary.branches if name.endswith(":then")}
    others = {name.rpartition(":")[0] for name in summary.branches if name.endswith(":else")}
    assert taken & others  # both sides of the same If


def test_a_tree_ensemble_is_refused_with_the_reason(tmp_path):
    from emergraph.errors import InvalidInputError

    path = MODELS / "surfaces-onnx-files" / "surfaces_onnx_files" / "k_neighbors_classifier.validity.onnx"
    store_path = tmp_path / "s.duckdb"
    with (
        open_store(store_path, mode="create") as store,
        pytest.raises(InvalidInputError, match="TreeEnsembleClassifier"),
    ):
        export_onnx(path, store)
