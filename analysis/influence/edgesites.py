"""Edges that can be ablated: a weight's term replaced by that of the baseline, with masks that are inputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper as oh

from emergraph.analysis.influence.layerrun import Model
from emergraph.analysis.influence.options import Baseline
from emergraph.errors import InvalidInputError
from emergraph.exporters.counting import CountingSink
from emergraph.exporters.export import ExportOptions, traceable
from emergraph.exporters.onnxfile.dtypes import element_type_of
from emergraph.exporters.operations import ADD, Kind, kind_of
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.traces.prepare import Prepared
from emergraph.exporters.tracing.labels import Labels, compress
from emergraph.exporters.tracing.sums import Sum, Sums
from emergraph.exporters.tracing.tracer import trace

if TYPE_CHECKING:
    from emergraph.analysis.access import GraphAccess
    from emergraph.exporters.onnxfile.file import OnnxFile

Array = NDArray[np.generic]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@contextmanager
def traced_sums(at: "GraphAccess", file: "OnnxFile", prepared: Prepared) -> Iterator[Sums]:
    """What the operations of a graph's model sum up on samples; constants can be read inside.

    Raises:
        InvalidInputError: On samples of these sizes the model has other units than the graph.
    """
    exported = ExportOptions(all_branches='"branches": "all"' in str(at.reader.summary["settings"]))
    sums, sink = Sums(), CountingSink()
    with traceable(file, prepared.run, exported) as traced:
        trace(traced, sink, sums=sums)
        stored = at.reader.layers().select("name", "first_unit", "n_units").rows()
        found = [(layer.name, layer.first_unit, layer.n_units) for layer in sink.layers]
        if stored != found:
            name, _, count = next((a for a, b in zip(stored, found, strict=False) if a != b), stored[-1])
            raise InvalidInputError(
                f"on samples of these sizes the model has other units than graph {quoted(at.reader.name)} "
                f"(layer {quoted(name)}, {count} units there); export it with inputs of the same sizes"
            )
        yield sums


def _floats(values: Array) -> Floats:
    return np.asarray(values, np.float64)


class _Places(NamedTuple):
    """Where the edges of one operation are in its weight."""

    one: Sum
    weight: int
    """Position of the weight among the operation's inputs."""
    x: int
    src: Ints
    """Of the weight's shape: the source of every element."""
    dst: Ints

    def values(self) -> Floats:
        """The weight."""
        weight = self.one.operands[1].constant
        assert weight is not None  # noqa: S101 - by `_places`
        return _floats(weight.load())


@dataclass(frozen=True, eq=False)
class Site:
    """An operation some of whose edges can be ablated."""

    out: str
    weight: int
    x: int
    which: Ints
    """Of the weight's shape: number of the edge that every element belongs to; -1 for others."""
    types: tuple[int, int]
    """Element types of the weight and of what it multiplies."""
    baseline: Sequence[Array]
    """By sample: what the operation reads where an edge is ablated."""

    @property
    def mask(self) -> str:
        """Name of the input that is 1 where an edge goes on."""
        return f"{self.out}\0edges"

    @property
    def base(self) -> str:
        """Name of the input that is read where it does not."""
        return f"{self.out}\0baseline"

    def feeds(self, going_on: Bools | None, samples: Sequence[int]) -> dict[str, Array]:
        """The two inputs of a run.

        Args:
            going_on: (n_edges,) of the edges of all sites; None for all.
            samples: Of the run.
        """
        chosen = [self.baseline[k] for k in samples]
        whole = chosen[0] if len(chosen) == 1 else np.concatenate(chosen)
        flags = np.ones(self.which.shape, bool) if going_on is None else np.append(going_on, True)[self.which]
        return {self.mask: flags.astype(whole.dtype), self.base: whole}


@dataclass(frozen=True, eq=False)
class Sites:
    """All edges that can be ablated, and where."""

    sites: tuple[Site, ...]
    src: Ints
    """(n_edges,) units."""
    dst: Ints
    strength: Floats
    """(n_edges,) sum of absolute weights times how far the source is from its baseline, mean."""


def edge_sites(
    model: Model, sums: Sums, sources: Bools, targets: Bools, n: int, baseline: Baseline, seed: int
) -> Sites:
    """Where the edges between some units are, among those whose weight is a tensor that one operation reads.

    Args:
        model: The model.
        sums: What its operations sum up.
        sources: (n_units,) whose edges are wanted.
        targets: (n_units,) edges into which.
        n: Samples.
        baseline: What is read where an edge is ablated.
        seed: Which sample resample takes.
    """
    nodes = {id(node) for node in model.prepared.run.flat.nodes}
    found = [places for one in sums.found if id(one.node) in nodes and (places := _places(one)) is not None]
    chosen = []
    for places in found:
        inside = (places.src >= 0) & (places.dst >= 0) & sources[places.src] & targets[places.dst]
        if inside.any() and (inside := inside & (places.values() != 0)).any():
            chosen.append((places, inside))
    clean = _clean(model, [str(p.one.node.input[p.x]) for p, _ in chosen], n)
    sites, ends, strengths = [], [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    count = 0
    for places, inside in chosen:
        name = str(places.one.node.input[places.x])
        values = [each[name] for each in clean]
        labels = np.asarray(places.one.operands[0].labels)
        base = _baselines(values, labels, baseline, seed)
        far = np.mean([np.abs(_floats(v) - _floats(b)) for v, b in zip(values, base, strict=True)], axis=0)
        size = np.abs(places.values())
        pairs = np.stack([places.src[inside], places.dst[inside]], axis=1)
        distinct, inverse = np.unique(pairs, axis=0, return_inverse=True)
        which = np.full(places.src.shape, -1, np.int64)
        which[inside] = count + inverse.ravel()
        by_unit = _mean_by_label(far, labels, int(distinct[:, 0].max()) + 1)
        weights = np.bincount(inverse.ravel(), size[inside], len(distinct))
        ends.append(distinct)
        strengths.append(weights * by_unit[distinct[:, 0]])
        count += len(distinct)
        types = tuple(element_type_of(values[0].dtype) or onnx.TensorProto.FLOAT for _ in range(2))
        sites.append(
            Site(str(places.one.node.output[0]), places.weight, places.x, which, (types[0], types[1]), base)
        )
    both = np.concatenate(ends)
    return Sites(tuple(sites), both[:, 0], both[:, 1], np.concatenate(strengths))


def _places(one: Sum) -> _Places | None:
    """Where the edges of an operation are; None where its weight is no float tensor that it reads itself."""
    kind = kind_of(one.node)
    if kind not in _PLAIN or len(one.operands) < 2 or one.labels is None:
        return None
    x, weight = one.operands[0], one.operands[1].constant
    names = list(one.node.input[:2])
    if weight is None or x.name not in names or x.labels is None or x.zero or x.scale:
        return None
    at = names.index(x.name)
    labels, after = compress(x.labels), compress(one.labels)
    if one.letters is not None:
        letters = one.letters
        src = _spread(labels, letters.left, letters.right, weight.shape)
        dst = _spread(after, letters.out, letters.right, weight.shape)
    else:
        src, dst = _of_channels(one, labels, after, weight.shape)
    return None if src is None or dst is None else _Places(one, 1 - at, at, src, dst)


_PLAIN = frozenset({Kind.MATMUL, Kind.GEMM, Kind.CONVOLUTION, Kind.CONV_TRANSPOSE})


def _spread(labels: Labels, own: str, weight: str, shape: tuple[int, ...]) -> Ints | None:
    """Labels of an operand, element by element of the weight; None where they change along other axes."""
    for axis, letter in enumerate(own):
        if labels.strides[axis] and labels.shape[axis] > 1 and letter not in weight:
            return None
    index = tuple(slice(None) if letter in weight else 0 for letter in own)
    kept = [letter for letter in own if letter in weight]
    order = [kept.index(letter) for letter in weight if letter in kept]
    moved = labels[index].transpose(order)
    return np.broadcast_to(moved[tuple(slice(None) if c in kept else None for c in weight)], shape)


def _of_channels(
    one: Sum, labels: Labels, after: Labels, shape: tuple[int, ...]
) -> tuple[Ints | None, Ints | None]:
    """Source and target of every element of a kernel; None where a channel is several units."""
    steady = all(
        not array.strides[k] or array.shape[k] == 1
        for array in (labels, after)
        for k in range(array.ndim)
        if k != 1
    )
    if not steady:
        return None, None
    read, made = (np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)[:, 0] for array in (labels, after))
    n_in, n_out = len(read) // one.group, len(made) // one.group
    group = np.arange(shape[0]) // (n_in if one.transposed else n_out)
    inner = np.arange(shape[1])[None]
    rest = [1] * (len(shape) - 2)
    own, other = (read, made) if one.transposed else (made, read)
    first = own.reshape(-1, 1, *rest)
    second = other[group[:, None] * (n_out if one.transposed else n_in) + inner].reshape(*shape[:2], *rest)
    src, dst = (first, second) if one.transposed else (second, first)
    return np.broadcast_to(src, shape), np.broadcast_to(dst, shape)


def _clean(model: Model, names: Sequence[str], n: int) -> list[dict[str, Array]]:
    """What operations read, sample by sample."""
    flat = model.prepared.run.flat
    given = {one.name for one in flat.inputs}
    made = [name for name in dict.fromkeys(names) if name not in given]
    if made:
        model.load(assemble(flat, made, model.source))
    found = []
    for k in range(n):
        feeds = model.feeds(k)
        found.append({**feeds, **(model.fetch(feeds, made) if made else {})})
    return found


def _mean_by_label(values: Array, labels: Labels, count: int) -> Floats:
    """(count,) of every unit the mean of the elements that carry it."""
    flat = np.broadcast_to(labels, values.shape).ravel()
    inside = (flat >= 0) & (flat < count)
    sums = np.bincount(flat[inside], np.asarray(values, np.float64).ravel()[inside], count)
    return np.asarray(sums / np.maximum(np.bincount(flat[inside], minlength=count), 1))


def _baselines(values: Sequence[Array], labels: Labels, baseline: Baseline, seed: int) -> list[Array]:
    n = len(values)
    if baseline is Baseline.RESAMPLE:
        shift = 1 + seed % max(1, n - 1)
        return [values[(k + shift) % n] for k in range(n)]
    count = int(labels.max()) + 1
    means = np.zeros(count)
    if baseline is Baseline.MEAN:
        means = np.mean([_mean_by_label(one, labels, count) for one in values], axis=0)
    carried = np.broadcast_to(labels, values[0].shape)
    return [np.where(carried >= 0, means[carried], one).astype(one.dtype) for one in values]


def with_edges(flat: FlatModel, sites: Sequence[Site]) -> FlatModel:
    """A model whose operations read the baseline through weights of edges that do not go on."""
    by_out = {site.out: site for site in sites}
    nodes: list[onnx.NodeProto] = []
    for node in flat.nodes:
        site = by_out.get(node.output[0]) if node.output else None
        nodes += [node] if site is None else _ablatable(node, site)
    inputs = [*flat.inputs]
    for site in sites:
        inputs.append(FlatInput(site.mask, site.types[0], (None,) * site.which.ndim))
        inputs.append(FlatInput(site.base, site.types[1], (None,) * site.baseline[0].ndim))
    return replace(flat, nodes=tuple(nodes), inputs=tuple(inputs))


def _ablatable(node: onnx.NodeProto, site: Site) -> list[onnx.NodeProto]:
    weight = node.input[site.weight]
    on, off, own, other = (f"{site.out}\0{part}" for part in ("on", "off", "own", "other"))
    first, second = onnx.NodeProto(), onnx.NodeProto()
    for copy, named, out in ((first, on, own), (second, off, other)):
        copy.CopyFrom(node)
        copy.input[site.weight] = named
        copy.output[0] = out
    second.input[site.x] = site.base
    del second.input[2:]  # the bias
    return [
        oh.make_node("Mul", [weight, site.mask], [on]),
        oh.make_node("Sub", [weight, on], [off]),
        first,
        second,
        oh.make_node(ADD, [own, other], [site.out]),
    ]
