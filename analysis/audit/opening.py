"""Opening what is audited: the file is checked, the model run once, and its network put into a store.

What an index, a comparison or a mask decides is control, and has no edges. So that nothing is called constant
or unread for the lack of an edge, layers right behind such a decision count as reached, and those right
before it as read.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx

from emergraph.analysis.audit.activity import Activity, run_samples
from emergraph.analysis.audit.network import Mask, Network
from emergraph.analysis.audit.subject import MOST_SAMPLES, RANDOM_SAMPLES, Given, OnnxSubject, Subject
from emergraph.atomic import together
from emergraph.errors import InvalidInputError
from emergraph.exporters.checking import check_any
from emergraph.exporters.export import ExportOptions
from emergraph.exporters.modeltensors import open_model
from emergraph.exporters.nodes import depends_on, has_subgraph
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.operations import Kind, kind_of, spec_of
from emergraph.exporters.runtime.flat_model import FlatModel, names_used
from emergraph.exporters.runtime.sizes import open_shapes_note
from emergraph.exporters.sourcekinds import SourceKind, source_kind
from emergraph.exporters.sources import SourceOptions, export_any
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import given_samples, random_samples
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import TracedAs
from emergraph.graphstore.store import open_store
from emergraph.leftovers import Scratch

_DECIDES = {Kind.CHOICE: (0,)}
"""Inputs that decide, where the operation's entry does not name them as steering."""


@contextlib.contextmanager
def opened(model: str | Path, given: Given) -> Iterator[Subject]:
    """Check a file and, where nothing speaks against it, read, run and trace it.

    What cannot be had (a format without operations, an operation that is not understood) is left out with a
    note.
    """
    kind = source_kind(model)
    checks = [] if kind is SourceKind.FACTORY else check_any(model, root=given.root)
    subject = Subject(
        path=str(model), kind=kind, checks=checks, given=bool(given.inputs), limits=given.limits
    )
    if subject.refused:
        yield subject
        return
    with Scratch() as scratch, contextlib.ExitStack() as closing:
        reader = _graph(subject, given, scratch.path, closing)
        if reader is not None:
            subject.network = Network(reader)
        _look_inside(subject, given)
        if subject.onnx is not None:
            closing.callback(subject.onnx.folder.close)
            if subject.network is not None:
                note_decisions(subject.network, subject.onnx.run.flat)
        yield subject


def _graph(subject: Subject, given: Given, folder: Path, closing: contextlib.ExitStack) -> GraphReader | None:
    """The model's graph in a store of the moment; None, and a note, where there is none."""
    subject.store = given.store or folder / "audit.duckdb"
    subject.model = Path(subject.path)
    source = SourceOptions()
    if subject.kind in (SourceKind.FACTORY, SourceKind.FOLDER):
        subject.model = folder / "model.onnx"
        source = SourceOptions(onnx_path=subject.model)
    scalars = {name: array for name, array in given.inputs.items() if np.asarray(array).size == 1}
    options = ExportOptions(
        name=Path(subject.path).stem,
        inputs={**scalars, **given.values},
        input_shapes=given.shapes,
        root=given.root,
        run_limits=given.limits,
        seed=given.seed,
    )
    try:
        # what is made here is there at once, and not only when the command ends
        with together(), open_store(subject.store, mode="create", in_place=True) as store:
            export_any(subject.path, store, options=options, source=source)
    except InvalidInputError as error:
        subject.notes.append(f"no graph: {error}")
        return None
    opened = closing.enter_context(open_store(subject.store))
    graph = opened.graph()
    if graph.lacks_weights:
        model = subject.model if subject.model.is_file() else Path(subject.path)
        root = given.root if model == Path(subject.path) else None
        with model_given(open_model(model, root=root)):
            graph = opened.graph()
    return graph


def _look_inside(subject: Subject, given: Given) -> None:
    if subject.kind in (SourceKind.WEIGHTS, SourceKind.GGUF):
        from emergraph.exporters.weightfiles.reader import read_weights

        subject.weights = read_weights(subject.path, root=given.root)
        return
    if subject.model is None or not subject.model.is_file():
        return
    root = given.root if subject.model == Path(subject.path) else None
    file = read_onnx(subject.model, root=root)
    options = TraceOptions(
        run_limits=given.limits, inputs=given.values, input_shapes=given.shapes, root=given.root
    )
    if given.inputs:
        prepared = given_samples(file, given.inputs, options)
    else:
        prepared = random_samples(file, RandomInputs(n=RANDOM_SAMPLES, seed=given.seed), options)
    if prepared.open_shapes:
        subject.notes.append(open_shapes_note(prepared.open_shapes))
    subject.onnx = OnnxSubject(file, prepared.run, prepared)


def run_subject(subject: Subject, given: Given, *, seconds: float) -> None:
    """Run the model on its samples, as many as the time allows, and keep outputs and what units did."""
    if subject.onnx is None:
        return
    layers = None if subject.network is None else subject.network.layers
    n_units = 0 if subject.network is None else subject.network.graph.n_units
    try:
        found = run_samples(
            subject.onnx.prepared,
            subject.onnx.source,
            layers,
            n_units,
            limits=given.limits,
            seconds=seconds,
            most=MOST_SAMPLES,
        )
    except InvalidInputError as error:
        subject.notes.append(f"not run: {error}")
        return
    subject.outputs, subject.n_samples = found.outputs, found.n
    subject.activity = Activity(
        n=found.n,
        given=subject.given,
        low=found.low,
        high=found.high,
        measured=found.measured,
        tensors=found.tensors,
    )


def note_decisions(network: Network, flat: FlatModel) -> None:
    """Tell a network which of its units lie right behind and right before decisions."""
    varying = depends_on(flat.nodes, [value.name for value in flat.inputs], shapes=False)
    traced = dict(network.reader.operations().select("name", "traced_as").iter_rows())
    deciding, behind = set(), set()
    for node in flat.nodes:
        found = {name for name in _steering(node) if name in varying}
        if traced.get(node.name) == TracedAs.CONTROL and varying & names_used([node]):
            found |= names_used([node]) & varying
        if found:
            deciding |= found
            behind |= {name for name in node.output if name}
    layers = _layers_by_operation(network)
    network.behind_decisions = _units(network, _next_layers(flat, behind, layers))
    network.before_decisions = _units(network, _last_layers(flat, deciding, layers))


def _steering(node: onnx.NodeProto) -> Iterator[str]:
    if has_subgraph(node):
        yield from names_used([node])
        return
    for position in (*spec_of(node).steering, *_DECIDES.get(kind_of(node), ())):
        if position < len(node.input) and node.input[position]:
            yield node.input[position]


def _layers_by_operation(network: Network) -> dict[str, set[int]]:
    """Layers by the name of the operation that makes them; of a fused one, by what its parts begin with."""
    found: dict[str, set[int]] = {}
    names = network.blocks.select("name", "layer").iter_rows()
    for name, layer in (*names, *network.layers.select("name", "id").iter_rows()):
        found.setdefault(str(name), set()).add(int(layer))
    return found


def _of(node: onnx.NodeProto, layers: dict[str, set[int]]) -> set[int]:
    return layers.get(node.name, set()) if node.name else set()


def _next_layers(flat: FlatModel, names: Iterable[str], layers: dict[str, set[int]]) -> set[int]:
    """The first layers that follow from some tensors."""
    live, found = set(names), set()
    for node in flat.nodes:
        if live.isdisjoint(names_used([node])):
            continue
        if own := _of(node, layers):
            found |= own
        else:
            live |= {name for name in node.output if name}
    return found


def _last_layers(flat: FlatModel, names: Iterable[str], layers: dict[str, set[int]]) -> set[int]:
    """The last layers that some tensors follow from."""
    live, found = set(names), set()
    for node in reversed(flat.nodes):
        if live.isdisjoint(node.output):
            continue
        if own := _of(node, layers):
            found |= own
        else:
            live |= names_used([node])
    inputs = {value.name for value in flat.inputs}
    for name in live & inputs:
        found |= layers.get(name, set())
    return found


def _units(network: Network, chosen: set[int]) -> Mask:
    per_layer = np.array([layer.id in chosen for layer in network.graph.layers], dtype=bool)
    return np.asarray(per_layer[network.graph.unit_layer])
