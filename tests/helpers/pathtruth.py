"""The numeric oracle: perturbing a unit changes exactly the units that the graph reaches from it.

A unit's values are perturbed where they are made: at the elements of the first float tensor that carry its
label (quantized codes only where they are floats again). A unit has changed when any element that carries its
label, in any tensor, is not bit for bit what it was. A fresh random input and a fresh random change are drawn
several times, so that a nonlinearity that is flat at one point does not hide an influence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from edgesink import reach
from numpy.typing import NDArray
from onnx import helper
from tracedmodel import Array, Feeds, Runner, Traced, random_feeds

from emergraph.graphstore.records import PATH_KINDS, EdgeKind, Layer, LayerKind

WITH_STATE = (*PATH_KINDS, EdgeKind.RECURRENT)
"""Path kinds over several time steps."""


@dataclass(frozen=True)
class Influence:
    """What perturbing units changed."""

    sources: list[int]
    """Units whose values are in some tensor."""
    changed: NDArray[np.bool_]
    """(units, units): whether perturbing the row's unit changed the column's."""
    observed: NDArray[np.bool_]
    """(units,): whether any tensor shows the unit."""


def carriers(traced: Traced) -> dict[int, str]:
    """The first float tensor that carries each unit, or else the first of any type (codes, indicators)."""
    found: dict[int, str] = {}
    shown = [name for name in traced.labels if name in traced.values]
    for name in sorted(shown, key=lambda n: traced.values[n].dtype.kind != "f"):
        labels = traced.labels[name]
        for unit in np.unique(labels[labels >= 0]).tolist():
            found.setdefault(unit, name)
    return found


def influence(
    traced: Traced,
    *,
    draws: int = 3,
    frozen: Iterable[str] = (),
    feeds: Sequence[Mapping[str, Array]] = (),
    size: float = 1.0,
    noise: float = 0.0,
) -> Influence:
    """Perturb every unit that a float tensor shows, and note which units change.

    Args:
        traced: The traced model.
        draws: Random inputs and changes tried.
        frozen: Tensors that keep the value they have in the unperturbed run.
        feeds: Inputs that take the place of random ones, per draw.
        size: Standard deviation of the changes.
        noise: Differences that do not count, for operations that keep running sums.
    """
    home = carriers(traced)
    tensors = [
        t for t in dict.fromkeys(home.values()) if traced.values[t].dtype.kind == "f" and t not in set(frozen)
    ]
    runner = Runner(intercepted(traced.model, traced.values, tensors, tuple(frozen)))
    plain = Runner(traced.model)
    n = traced.sink.n_units
    changed = np.zeros((n, n), bool)
    rng = np.random.default_rng(1)
    sources = [u for u, t in home.items() if t in tensors and not _is_state(traced, u)]
    for draw in range(draws):
        given: Feeds = {
            **random_feeds(traced.model, 100 + draw),
            **(feeds[draw] if draw < len(feeds) else {}),
        }
        still = {**given, **plain.run(given)}
        quiet = {f"delta:{t}": np.zeros_like(still[t]) for t in tensors} | {t: still[t] for t in frozen}
        # The same session runs both, so that equal values are equal bits.
        base = _run_moved(runner, given, quiet)
        for unit in sources:
            tensor = home[unit]
            where = traced.labels[tensor] == unit
            delta = np.where(where, rng.normal(scale=size, size=base[tensor].shape), 0.0).astype(
                base[tensor].dtype
            )
            moved = _run_moved(runner, given, quiet, {tensor: delta})
            changed[unit] |= _changed_units(traced, base, moved, noise)
    observed = np.zeros(n, bool)
    observed[list(home)] = True
    return Influence(sources, changed, observed)


def _is_state(traced: Traced, unit: int) -> bool:
    """Whether a unit acts inside its operation, where nothing can be perturbed from outside.

    That is the state of a recurrent layer, and the sum that a fused normalisation normalises.
    """
    layer = next(la for la in traced.sink.layers if unit in _units(la))
    is_inner_sum = layer.kind is LayerKind.JUNCTION and "/" in layer.name
    return layer.kind in (LayerKind.RNN_HIDDEN, LayerKind.RNN_CELL) or is_inner_sum


def _run_moved(
    runner: Runner, given: Feeds, quiet: Mapping[str, Array], deltas: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    feeds = {**given, **quiet}
    for tensor, delta in (deltas or {}).items():
        if tensor in given:
            feeds[tensor] = (given[tensor] + delta).astype(delta.dtype)
        else:
            feeds[f"delta:{tensor}"] = delta
    feeds = {
        name: array
        for name, array in feeds.items()
        if name.removeprefix("delta:") not in given or name in given
    }
    shown = {name: array for name, array in feeds.items() if not name.startswith("delta:")}
    return {**shown, **runner.run(feeds)}


def _changed_units(
    traced: Traced, base: Mapping[str, Array], moved: Mapping[str, Array], noise: float
) -> NDArray[np.bool_]:
    changed = np.zeros(traced.sink.n_units, bool)
    for name, labels in traced.labels.items():
        if name not in moved:
            continue
        differs = ~_equal(base[name], moved[name])
        if noise:
            differs &= ~(np.abs(base[name] - moved[name]) <= noise)
        hit = labels[differs]
        assert (hit >= 0).all(), f"{name}: an element that carries no unit changed"
        changed[hit] = True
    return changed


def _equal(a: Array, b: Array) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = a == b
    return same | ((a != a) & (b != b)) if a.dtype.kind == "f" else same


def intercepted(
    model: onnx.ModelProto, values: Mapping[str, Array], tensors: Sequence[str], frozen: Sequence[str]
) -> onnx.ModelProto:
    """A copy in which `delta:t` is added to every tensor t of a list, and frozen tensors are inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    inputs = {i.name for i in graph.input}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        nodes.append(renamed)
        for k, name in enumerate(node.output):
            if name in tensors or name in frozen:
                renamed.output[k] = f"raw:{name}"
            if name in tensors:
                nodes.append(helper.make_node("Add", [f"raw:{name}", f"delta:{name}"], [name]))
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    for name in (*(f"delta:{t}" for t in tensors if t not in inputs), *frozen):
        like = values[name.removeprefix("delta:")]
        element = helper.np_dtype_to_tensor_dtype(like.dtype)
        graph.input.append(helper.make_tensor_value_info(name, element, like.shape))
    outputs = [o.name for o in graph.output if o.name not in frozen]
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return copy


def hub_tensors(traced: Traced) -> list[str]:
    """First tensors of the group statistics of normalisations that are written out."""
    home = carriers(traced)
    units = [u for layer in traced.sink.layers if layer.kind is LayerKind.HUB for u in _units(layer)]
    return list(dict.fromkeys(home[u] for u in units if u in home))


def assert_path_truth(
    traced: Traced,
    kinds: Sequence[EdgeKind] = PATH_KINDS,
    *,
    frozen: Iterable[str] = (),
    draws: int = 3,
    feeds: Sequence[Mapping[str, Array]] = (),
    size: float = 1.0,
    noise: float = 0.0,
) -> NDArray[np.bool_]:
    """Assert that the graph, with edges of these kinds, tells exactly what perturbing a unit changes.

    Returns:
        (units, units) reachability.
    """
    found = influence(traced, frozen=frozen, draws=draws, feeds=feeds, size=size, noise=noise)
    expected = reach(traced.sink, kinds)
    assert found.sources
    _compare(traced, found, expected, expected)
    return expected


def assert_norm_truth(traced: Traced, *, draws: int = 3, noise: float = 0.0) -> None:
    """Assert exact influence where one normalisation is: paths may pass its statistic, once.

    The statistics are left out: that a unit moves its group's statistic, which moves the unit, is a cycle of
    the graph and none of the model.
    """
    found = influence(traced, draws=draws, noise=noise)
    assert found.sources
    plain = reach(traced.sink, PATH_KINDS)
    into = _steps(traced, EdgeKind.NORM, hubs=True)
    out_of = _steps(traced, EdgeKind.NORM, hubs=False)
    to_statistic = plain | _product(plain, into)
    through = plain | _product(_product(to_statistic, out_of), plain)
    hubs = [u for la in traced.sink.layers if la.kind is LayerKind.HUB for u in _units(la)]
    found.observed[hubs] = False
    sources = [u for u in found.sources if u not in hubs]
    _compare(traced, Influence(sources, found.changed, found.observed), through, through)


def _steps(traced: Traced, kind: EdgeKind, *, hubs: bool) -> NDArray[np.bool_]:
    """Edges of a kind into hubs, or into other units."""
    n = traced.sink.n_units
    step = np.zeros((n, n), bool)
    for found in traced.sink.of_kind(kind):
        if (traced.sink.layers[found.block.layer].kind is LayerKind.HUB) == hubs:
            step[found.src, found.dst] = True
    return step


def _product(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return (a.astype(np.float32) @ b.astype(np.float32)) > 0


def _units(layer: Layer) -> range:
    return range(layer.first_unit, layer.first_unit + layer.n_units)


def assert_path_bounds(
    traced: Traced,
    kinds: Sequence[EdgeKind] = PATH_KINDS,
    *,
    draws: int = 3,
    noise: float = 0.0,
) -> None:
    """Assert that influence lies between the graph without and the graph with `norm` edges."""
    found = influence(traced, draws=draws, noise=noise)
    assert found.sources
    _compare(traced, found, reach(traced.sink, kinds), reach(traced.sink, (*kinds, EdgeKind.NORM)))


def _compare(traced: Traced, found: Influence, least: NDArray[np.bool_], most: NDArray[np.bool_]) -> None:
    for unit in found.sources:
        missing = np.flatnonzero(found.observed & found.changed[unit] & ~most[unit])
        idle = np.flatnonzero(found.observed & least[unit] & ~found.changed[unit])
        assert missing.size == 0, (
            f"{_named(traced, unit)} changes {_names(traced, missing)}: the graph denies"
        )
        assert idle.size == 0, (
            f"{_named(traced, unit)} does not change {_names(traced, idle)}: the graph claims"
        )


def _named(traced: Traced, unit: int) -> str:
    layer = next(la for la in traced.sink.layers if unit in _units(la))
    return f"{layer.name}[{unit - layer.first_unit}]"


def _names(traced: Traced, units: NDArray[np.int64]) -> str:
    return ", ".join(_named(traced, int(u)) for u in units[:8])
