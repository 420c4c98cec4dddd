"""One row of the zoo: what an export understood of an architecture, and whether its graph is true."""

import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch
from torch import nn
from zoomodels.oracle import judge
from zoomodels.spec import Architecture
from zoomodels.torchvisionfix import import_torchvision
from zoomodels.tracing import ZooTrace, traced_module

from emergraph.exporters.pytorch.modules import capture
from emergraph.graphstore.records import Layer, LayerKind

WEIGHTED = (LayerKind.DENSE, LayerKind.CONV, LayerKind.EMBEDDING)
"""Layers that have one unit per output of a weight; gates of recurrences have one per gate row."""
SHOWN = 8


def warm_up() -> None:
    """Load once, in the process that the others are forked from, what the first export of a process loads."""
    torch.set_num_threads(1)
    import_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        capture(nn.Linear(2, 2).eval(), (torch.zeros(1, 2),), Path(folder) / "model.onnx")


def measured(architecture: Architecture) -> dict[str, object]:
    """Export an architecture and say how true its graph is; an error is a row, too."""
    start = perf_counter()
    row: dict[str, object] = {
        "name": architecture.name,
        "family": architecture.family,
        "group": architecture.group,
        "source": architecture.source,
    }
    try:
        built = architecture.made()
        built.module.eval()
        with tempfile.TemporaryDirectory() as folder:
            traced = traced_module(built, Path(folder))
            row["export_seconds"] = round(perf_counter() - start, 1)
            row |= _understood(traced, built.module)
            row["layers"] = _layers(traced, built.module)
            row["oracle"] = asdict(judge(traced))
    except Exception as error:  # noqa: BLE001 - whatever it is becomes a row that names it
        lines = str(error).strip().splitlines()
        row["error"] = f"{type(error).__name__}: {(lines[0] if lines else '')[:300]}"
    row["seconds"] = round(perf_counter() - start, 1)
    return row


def _understood(traced: ZooTrace, module: nn.Module) -> dict[str, object]:
    summary = traced.summary
    named = dict(module.named_parameters())
    unused = [name for name in traced.unused if name in named]
    opaque = {operation.op: operation.reason for operation in summary.opaque}
    return {
        "parameters": {
            "module": sum(parameter.numel() for parameter in named.values()),
            "unused": sum(named[name].numel() for name in unused),
            "unused_names": unused[:SHOWN],
            "graph": summary.n_parameters,
            "understood": summary.n_parameters_understood,
        },
        "operations": {"all": summary.n_operations, "understood": summary.n_operations_understood},
        "opaque": opaque,
        "units": summary.n_units,
        "edges": summary.n_edges,
    }


def _layers(traced: ZooTrace, module: nn.Module) -> dict[str, object]:
    """Units of each layer with weights, against the outputs that the module's own layers say they have."""
    expected = _outputs_by_parameter(module)
    matrices = {name for name, parameter in module.named_parameters() if parameter.ndim > 1}
    tensors: dict[int, set[str]] = {}
    for edges in traced.sink.edges:
        if edges.block.tensor is not None:
            tensors.setdefault(edges.block.layer, set()).add(edges.block.tensor)
    n = equal = unjudged = inferred = 0
    split: Counter[str] = Counter()
    other, silent = [], []
    for layer in traced.sink.layers:
        if layer.kind not in WEIGHTED or layer.id not in tensors:
            continue
        n += 1
        outputs = {expected[name] for name in tensors[layer.id] if name in expected}
        if not outputs or len(matrices.intersection(traced.roots_of_layers[layer.id])) > 1:
            # cut out of a parameter, or computed from several (learned queries, projected): it is none of them
            outputs = {traced.outputs_of_layers.get(layer.id, 0)} - {0}
            inferred += bool(outputs)
        if not outputs:
            unjudged += 1
        elif layer.n_units in outputs:
            equal += 1
        elif layer.split_by and layer.n_units > max(outputs):
            split[layer.split_by.value] += 1
        else:
            other.append(_shown(layer, outputs))
        if layer.activation_tensor is None:
            silent.append(layer.name)
    return {
        "weighted": n - unjudged,
        "equal": equal,
        "inferred": inferred,
        "unjudged": unjudged,
        "split": dict(split),
        "other": other[:SHOWN],
        "n_other": len(other),
        "without_activation": silent[:SHOWN],
        "n_without_activation": len(silent),
    }


def _shown(layer: Layer, outputs: set[int]) -> str:
    return f"{layer.name}: {layer.n_units} for {' or '.join(map(str, sorted(outputs)))}"


def _outputs_by_parameter(module: nn.Module) -> dict[str, int]:
    """How many outputs the weight of each of a module's ordinary layers has, by the parameter's names."""
    found: dict[str, int] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owner_name, _, own = name.rpartition(".")
        outputs = _outputs(module.get_submodule(owner_name), own, tuple(parameter.shape))
        if outputs is not None:
            found[name] = outputs
    return found


def _outputs(owner: nn.Module, own: str, shape: tuple[int, ...]) -> int | None:
    """Of the weight of an ordinary layer that is used whole; packed projections of attention are cut up."""
    if own != "weight" or not shape:
        return None
    if isinstance(owner, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return shape[1] * owner.groups
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag) or type(owner).__name__ == "Conv1D":
        return shape[1]
    plain = nn.Linear | nn.Bilinear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    return shape[0] if isinstance(owner, plain) else None
