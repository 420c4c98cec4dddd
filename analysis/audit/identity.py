"""What a file is and takes: declared facts, a guess at task and family with its grounds, and its size."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from emergraph.analysis.audit.network import SATURATED, Network
from emergraph.analysis.audit.result import Guess, Identity, Size
from emergraph.analysis.audit.subject import OnnxSubject, Subject, stored_tensors
from emergraph.exporters.onnxfile.dtypes import BY_NAME, ELEMENT_TYPES
from emergraph.exporters.operations import CONVOLUTIONS, DENSE, Kind, kind_of
from emergraph.exporters.runtime.flat_model import FlatInput
from emergraph.exporters.runtime.sizes import declared_text
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.store import open_store

_LICENCE_KEYS = ("license", "licence", "spdx", "license_name")
_SHOWN = 5


def same_networks(network: Network, store: Path) -> dict[str, float]:
    """Return which graphs of a store hold tensors of weights of a network, bit by bit: the most first.

    Raises:
        InvalidInputError: There is no such file.
        StoreError: It is no store.
    """
    own = _weights(network.reader)
    total = sum(own.values())
    found: dict[str, float] = {}
    with open_store(store) as opened:
        for name, graph in opened.graphs().select("name", "id").iter_rows():
            there = _weights(opened.graph(int(graph)))
            shared = sum(n for digest, n in own.items() if digest in there)
            if shared:
                found[str(name)] = shared / total
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _weights(reader: GraphReader) -> dict[str, int]:
    """Parameters of each tensor of weights, by the digest of its values and its shape."""
    tensors = reader.tensors().filter(pl.col("role") == "weight").drop_nulls("sha256")
    rows = tensors.select("sha256", "n_params").iter_rows()
    return {str(digest): int(n) for digest, n in rows}


def identity_of(subject: Subject) -> Identity | None:
    """Say what a file is; None where it was not read."""
    if subject.onnx is not None:
        return _of_onnx(subject, subject.onnx)
    weights = subject.weights
    if weights is None:
        return None
    plain = {str(k): str(v)[:200] for k, v in weights.metadata.items() if isinstance(v, str | int | float)}
    return Identity(
        name=weights.source,
        format=weights.format,
        sha256=weights.sha256,
        bytes=weights.size,
        producer="",
        opsets={},
        inputs={},
        outputs=(),
        licence=_licence(plain),
        metadata=plain,
        guess=None,
    )


def _of_onnx(subject: Subject, onnx: OnnxSubject) -> Identity:
    model, flat = onnx.file.model, onnx.run.flat
    metadata = {entry.key: entry.value[:200] for entry in model.metadata_props}
    return Identity(
        name=onnx.file.name if subject.kind == "onnx" else subject.path,
        format=str(subject.kind),
        sha256=onnx.file.sha256,
        bytes=onnx.file.size + sum(len(one.content) for one in onnx.file.external_files.values()),
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        opsets={entry.domain or "ai.onnx": int(entry.version) for entry in model.opset_import},
        inputs={value.name: f"{_type(value)} {declared_text(value)}" for value in flat.inputs},
        outputs=tuple(flat.outputs),
        licence=_licence(metadata),
        metadata=metadata,
        guess=guess(onnx),
    )


def _type(value: FlatInput) -> str:
    element = ELEMENT_TYPES.get(value.element_type)
    return "?" if element is None else element.name


def _licence(metadata: Mapping[str, str]) -> str:
    return next((value for key, value in metadata.items() if key.lower() in _LICENCE_KEYS), "")


def guess(onnx: OnnxSubject) -> Guess:
    """Guess family and task from operations, inputs and outputs; each ground is a fact of the file."""
    kinds = Counter(kind_of(node) for node in onnx.run.flat.nodes)
    family, grounds = _family(onnx, kinds)
    task, more = _task(onnx)
    return Guess(family=family, task=task, grounds=(*grounds, *more))


def _family(onnx: OnnxSubject, kinds: "Counter[Kind]") -> tuple[str, list[str]]:
    convolutions = sum(kinds[kind] for kind in CONVOLUTIONS)
    dense = sum(kinds[kind] for kind in DENSE)
    scores = sum(
        1
        for node in onnx.run.flat.nodes
        if kind_of(node) is Kind.MATMUL
        and not any(name in onnx.makers or _given(onnx, name) for name in node.input)
    )
    if kinds[Kind.RECURRENT] or kinds[Kind.LOOP]:
        return "recurrent network", [f"{kinds[Kind.RECURRENT] + kinds[Kind.LOOP]} recurrent operations"]
    if kinds[Kind.ATTENTION] or (scores >= 2 and kinds[Kind.SOFTMAX]):
        n = kinds[Kind.ATTENTION] or scores // 2
        return "transformer", [f"{n} attentions"]
    if convolutions:
        return "convolutional network", [f"{convolutions} convolutions"]
    if dense:
        return "network of dense layers", [f"{dense} dense layers"]
    return "no neural network that is known here", ["no convolutions, dense layers or recurrences"]


def _given(onnx: OnnxSubject, name: str) -> bool:
    return name in onnx.run.flat.initializers


def _task(onnx: OnnxSubject) -> tuple[str, list[str]]:
    run = onnx.run
    names = {name.lower() for name in run.inputs}
    shape = run.values[run.flat.outputs[0]].shape if run.flat.outputs[0] in run.values else None
    last = next((node for node in run.flat.nodes if run.flat.outputs[0] in node.output), None)
    grounds = [f"first output of shape {list(shape)}"] if shape is not None else []
    if names & {"input_ids", "token_type_ids", "attention_mask"}:
        return "text", [*grounds, "inputs named as those of a text model"]
    image = any(array.ndim == 4 and 3 in (array.shape[1], array.shape[-1]) for array in run.inputs.values())
    where = "images" if image else "unknown inputs"
    if image:
        grounds.append("an input with four axes, one of them of size 3")
    if last is not None and kind_of(last) is Kind.SOFTMAX:
        return f"classification of {where}", [*grounds, "a softmax at the end"]
    if last is not None and SATURATED.get(last.op_type) == (0.0, 1.0):
        return f"scores for {where}", [*grounds, "a sigmoid at the end"]
    return where, grounds


def size_of(subject: Subject) -> Size:
    """Measure what a model takes."""
    stored: Counter[str] = Counter()
    values = 0
    for _, dtype, array in stored_tensors(subject):
        stored[dtype] += -(-array.size * BY_NAME[dtype].bits // 8) if dtype in BY_NAME else array.nbytes
        values += int(array.size)
    network = subject.network
    layers: dict[str, int] = {}
    if network is not None:
        ranked = sorted(network.graph.layers, key=lambda layer: -layer.n_params)
        layers = {layer.name: layer.n_params for layer in ranked[:_SHOWN] if layer.n_params}
    made = _activations(subject)
    return Size(
        parameters=None if network is None else network.graph.n_params,
        zeros=None if network is None else network.graph.n_params - network.graph.n_nonzero,
        values=values,
        bytes_by_dtype=dict(stored.most_common()),
        flops=flops_of(subject),
        activation_bytes=sum(made) if made else None,
        largest_activation_bytes=max(made, default=None),
        layers=layers,
    )


def _activations(subject: Subject) -> list[int]:
    if subject.onnx is None:
        return []
    run = subject.onnx.run
    found = []
    for node in run.flat.nodes:
        for name in node.output:
            value = run.values.get(name)
            if name and name not in subject.onnx.makers and value is not None and value.shape is not None:
                width = 1 if value.dtype is None else value.dtype.itemsize
                found.append(int(np.prod(value.shape)) * width)
    return found


def flops_of(subject: Subject) -> float | None:
    """Two for every multiply-add of a contraction's weights that are not zero."""
    if subject.onnx is None:
        return None
    from emergraph.analysis.pruning.smaller import Shrinker

    shrinker = Shrinker(subject.onnx.run, subject.onnx.source)
    return float(shrinker.costs({}).flops)
