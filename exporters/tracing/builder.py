"""The graph under construction: layers and units are numbered here, edges go straight to the sink."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.filetensors import NO_FILES, FileTensors
from emergraph.exporters.tracing.tracks import Track
from emergraph.graphstore.inplace import Matrix
from emergraph.graphstore.records import (
    NEURON_LAYER_KINDS,
    Block,
    EdgeKind,
    GraphSink,
    Kernels,
    Layer,
    LayerKind,
    MatrixKernels,
    Place,
    Role,
    SplitBy,
    UnitColumns,
)

MAX_UNITS = 2**31 - 1
_FAMILY_BITS = 31


@dataclass
class LayerDraft:
    """A layer whose columns are still being filled in."""

    id: int
    name: str
    op: str
    kind: LayerKind
    first: int
    count: int
    depth: int = 0
    dtype: str = ""
    n_params: int = 0
    n_zeros: int = 0
    roots: list[str] = field(default_factory=list)
    """Parameter tensors that the layer's counts are of."""
    queries: NDArray[np.int64] | None = None
    """Of context features that learned queries attend to: the query of each unit."""
    n_outputs: int | None = None
    """Outputs of the layer's weight, where positions may be units besides."""
    split_by: SplitBy | None = None
    """Why it has more units than outputs; what structural layers are made of hands it on to them."""
    is_output: bool = False
    seen: list[Track] = field(default_factory=list)
    """How consumers read the layer, in order."""
    raw: Track | None = None
    """The producing tensor."""

    @property
    def units(self) -> NDArray[np.int64]:
        """Ids of the layer's units."""
        return np.arange(self.first, self.first + self.count)


@dataclass
class Reduction:
    """A reduction over distinct units, whose kind shows only at the end of the trace."""

    layer: LayerDraft
    members: list[NDArray[np.int64]]
    """For each of the layer's units, the sorted labels that it reduces (with those behind them)."""
    direct: list[NDArray[np.int64]]
    """For each unit, the labels that it reduces directly."""
    weights: list[NDArray[np.float64]] | None
    """The weights of those; None where there is no one number (maxima, products)."""
    used_as_value: bool = False
    readings: list[tuple[int, Track]] = field(default_factory=list)
    """(layer, track) of what it reads, which counts as a reading where the reduction is used as a value."""


class GraphBuilder:
    """Numbers layers, units and blocks, and passes edges on to a `GraphSink`."""

    def __init__(self, sink: GraphSink, tensors: FileTensors = NO_FILES) -> None:
        self.sink = sink
        self.tensors = tensors
        self.n_in_place = 0
        """Edges of matrices that are entries of tensors as the file holds them."""
        self.rows: Counter[str] = Counter()
        """Edges of weights that are none, by their tensor."""
        self.layers: list[LayerDraft] = []
        self.n_units = 0
        self.n_blocks = 0
        self.n_edges = 0
        self.n_weight_edges = 0
        self._names: dict[str, int] = {}
        self._starts: list[int] = []
        self._tensor_blocks: dict[str, int] = {}
        self.reductions: dict[int, Reduction] = {}
        self.scores: set[int] = set()
        """Layers of attention scores, and of what masks and gates make of them."""
        self.learned_scores: set[int] = set()
        """Those that parameters make of keys: queries that do not depend on the input."""
        self._norm_pairs: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
        self._lineage = Lineage()

    def unique_name(self, wanted: str) -> str:
        """A layer name that no other layer has."""
        seen = self._names.get(wanted, 0)
        self._names[wanted] = seen + 1
        return wanted if seen == 0 else self.unique_name(f"{wanted}#{seen + 1}")

    def add_layer(self, name: str, op: str, kind: LayerKind, count: int) -> LayerDraft:
        """Append a layer of `count` new units."""
        if self.n_units + count > MAX_UNITS:
            from emergraph.errors import LimitError

            raise LimitError(
                f"{name}: the graph would have more than {MAX_UNITS} units; use smaller input shapes"
            )
        layer = LayerDraft(len(self.layers), self.unique_name(name), op, kind, self.n_units, count)
        self.layers.append(layer)
        self._starts.append(self.n_units)
        self.n_units += count
        return layer

    def layer_ids(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Layer id of each unit."""
        return np.searchsorted(np.asarray(self._starts), units, side="right") - 1

    def families(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Family of each unit: its layer, one for each learned query, one for all steps of a recurrence."""
        layers = self.layer_ids(units)
        if self.are_steps(np.unique(layers)):
            return np.full_like(layers, layers.min())
        found = layers << _FAMILY_BITS
        for layer in np.unique(layers).tolist():
            queries = self.layers[layer].queries
            if queries is not None:
                here = layers == layer
                found[here] += queries[units[here] - self.layers[layer].first]
        return found

    def are_steps(self, layers: NDArray[np.int64]) -> bool:
        """Whether some layers are different steps of an unrolled recurrence."""
        return self._lineage.are_steps(layers.tolist())

    def layers_of(self, units: NDArray[np.int64]) -> list[LayerDraft]:
        """Distinct layers of some units."""
        return [self.layers[i] for i in np.unique(self.layer_ids(units))]

    def _block(
        self, layer: LayerDraft, *, name: str, op: str, kind: EdgeKind, tensor: str | None, note: str | None
    ) -> Block:
        shared = self._tensor_blocks.get(tensor) if tensor else None
        if tensor and shared is None:
            self._tensor_blocks[tensor] = self.n_blocks
        if tensor and kind is EdgeKind.WEIGHT:
            self._lineage.uses(layer.id, tensor)
        if tensor is None and kind is EdgeKind.WEIGHT:
            note = note or "fixed weights, of no parameter"
        block = Block(
            id=self.n_blocks,
            name=name,
            op=op,
            kind=kind,
            layer=layer.id,
            tensor=tensor,
            shared_with=shared,
            note=note,
        )
        self.n_blocks += 1
        return block

    def _deepen(self, layer: LayerDraft, sources: NDArray[np.int64], kind: EdgeKind) -> None:
        if kind in (EdgeKind.RECURRENT, EdgeKind.NORM) or sources.size == 0:
            return
        above = self.layers_of(sources)
        layer.depth = max(layer.depth, max(source.depth for source in above) + 1)
        self._made_of(layer, above)

    def _made_of(self, layer: LayerDraft, above: Sequence[LayerDraft]) -> None:
        self._lineage.reads(layer.id, [source.id for source in above])
        if layer.kind not in NEURON_LAYER_KINDS and layer.split_by is None:
            layer.split_by = next((source.split_by for source in above if source.split_by), None)

    def _follow_scores(self, layer: LayerDraft, sources: NDArray[np.int64]) -> None:
        joins = layer.kind in (LayerKind.JUNCTION, LayerKind.GATE) and sources.size > 0
        inherits = joins and not self.scores.isdisjoint(np.unique(self.layer_ids(sources)).tolist())
        if layer.kind is LayerKind.SCORE or inherits:
            self.scores.add(layer.id)

    def use_as_value(self, units: NDArray[np.int64]) -> None:
        """Note that reductions among the units feed something other than a normalisation."""
        if not self.reductions:
            return
        for layer_id in np.unique(self.layer_ids(units)):
            reduction = self.reductions.get(int(layer_id))
            if reduction is not None:
                reduction.used_as_value = True

    def matrix(  # noqa: PLR0913 - the columns of a block and of its edges, by keyword
        self,
        layer: LayerDraft,
        *,
        name: str,
        op: str,
        kind: EdgeKind,
        src_units: NDArray[np.int64],
        dst_units: NDArray[np.int64],
        weights: NDArray[np.floating] | Matrix,
        place: Place | None = None,
        kernels: MatrixKernels | None = None,
        tensor: str | None = None,
        note: str | None = None,
    ) -> Block:
        """Write a block given as a matrix (n_src, n_dst); `place` says where one of codes is."""
        block = self._block(layer, name=name, op=op, kind=kind, tensor=tensor, note=note)
        self._deepen(layer, src_units, kind)
        self.use_as_value(src_units)
        if tensor is not None and kernels is None and isinstance(weights, np.ndarray):
            place = self.tensors.place_of(tensor, weights)
        written = self.sink.write_matrix(block, src_units, dst_units, weights, kernels, place)
        self.n_in_place += 0 if place is None else written
        self._count(tensor, written, rows=place is None)
        return block

    def edges(  # noqa: PLR0913 - the columns of a block and of its edges, by keyword
        self,
        layer: LayerDraft,
        *,
        name: str,
        op: str,
        kind: EdgeKind,
        src: NDArray[np.int64],
        dst: NDArray[np.int64],
        weight: NDArray[np.floating] | None = None,
        kernels: Kernels | None = None,
        tensor: str | None = None,
        note: str | None = None,
        as_value: bool = True,
    ) -> Block | None:
        """Write a block given as a list of edges; nothing when the list is empty."""
        if src.size == 0:
            return None
        self._follow_scores(layer, src)
        block = self._block(layer, name=name, op=op, kind=kind, tensor=tensor, note=note)
        self._deepen(layer, np.unique(src), kind)
        if as_value:
            self.use_as_value(np.unique(src))
        self._count(tensor, self.sink.write_edges(block, src, dst, weight, kernels), rows=True)
        return block

    def _count(self, tensor: str | None, edges: int, *, rows: bool) -> None:
        self.n_edges += edges
        if tensor:
            self.n_weight_edges += edges
            self.rows.update({tensor: edges} if rows and edges else {})

    def add_reduction(
        self,
        name: str,
        op: str,
        sets: Sequence[NDArray[np.int64]],
        weights: Sequence[NDArray[np.floating]] | None = None,
    ) -> Reduction:
        """A structural unit per distinct set of labels; its edges are written by `finish`.

        Args:
            name: Operation name.
            op: Operation type.
            sets: For each new unit, the sorted labels that it reduces.
            weights: For each new unit, the weights of its edges; None for maxima, products and statistics.
        """
        layer = self.add_layer(name, op, LayerKind.REDUCTION, len(sets))
        members = [np.unique(np.concatenate([s, *self._behind(s)])) for s in sets]
        everything = np.unique(np.concatenate([np.empty(0, np.int64), *sets]))
        above = self.layers_of(everything) if everything.size else []
        layer.depth = 1 + max((source.depth for source in above), default=-1)
        self._made_of(layer, above)
        as_floats = None if weights is None else [np.asarray(w, np.float64) for w in weights]
        self.reductions[layer.id] = Reduction(layer, members, list(sets), as_floats)
        return self.reductions[layer.id]

    def _behind(self, units: NDArray[np.int64]) -> Iterable[NDArray[np.int64]]:
        for unit, layer_id in zip(units, self.layer_ids(units), strict=True):
            reduction = self.reductions.get(int(layer_id))
            if reduction is not None:
                yield reduction.members[int(unit) - reduction.layer.first]

    def members(self, unit: int) -> NDArray[np.int64] | None:
        """Labels behind a reduction unit, or None for other units."""
        layer_id = int(self.layer_ids(np.asarray([unit]))[0])
        reduction = self.reductions.get(layer_id)
        return None if reduction is None else reduction.members[unit - reduction.layer.first]

    def norm_edges(self, name: str, op: str, pairs: NDArray[np.int64]) -> None:
        """Edges (hub, unit) of a normalisation, grouped by operation and written by `finish`."""
        if pairs.size:
            self._norm_pairs.setdefault((name, op), []).append(pairs)

    def finish(self) -> None:
        """Write the edges of reductions and normalisations, then all layers and units."""
        for reduction in reversed(self.reductions.values()):
            # A reduction of reductions: what is behind a value is a value.
            if reduction.used_as_value or reduction.layer.is_output:
                reduction.used_as_value = True
                self.use_as_value(np.concatenate([np.empty(0, np.int64), *reduction.direct]))
                for layer_id, track in reduction.readings:
                    self.layers[layer_id].seen.append(track)
        for reduction in self.reductions.values():
            self._finish_reduction(reduction)
        for (name, op), parts in self._norm_pairs.items():
            pairs = np.unique(np.concatenate(parts), axis=0)
            layer_of = self.layer_ids(pairs[:, 1])
            for layer_id in np.unique(layer_of):
                chosen = pairs[layer_of == layer_id]
                self.edges(
                    self.layers[int(layer_id)],
                    name=name,
                    op=op,
                    kind=EdgeKind.NORM,
                    src=chosen[:, 0],
                    dst=chosen[:, 1],
                    as_value=False,
                )
        self.sink.write_layers([_layer(draft) for draft in self.layers])
        self.sink.write_units([_columns(draft) for draft in self.layers])

    def _finish_reduction(self, reduction: Reduction) -> None:
        layer = reduction.layer
        kind = EdgeKind.IDENTITY if reduction.used_as_value else EdgeKind.NORM
        layer.kind = LayerKind.REDUCTION if kind is EdgeKind.IDENTITY else LayerKind.HUB
        src = np.concatenate(reduction.direct) if reduction.direct else np.empty(0, np.int64)
        sizes = np.asarray([s.size for s in reduction.direct])
        dst = np.repeat(layer.units, sizes)
        weight: NDArray[np.float64] | None = None
        if kind is EdgeKind.IDENTITY and reduction.weights is not None:
            weight = np.concatenate([np.empty(0), *reduction.weights])
        self.edges(
            layer, name=layer.name, op=layer.op, kind=kind, src=src, dst=dst, weight=weight, as_value=False
        )


def _layer(draft: LayerDraft) -> Layer:
    track = shown_track(draft)
    neuron = draft.kind in NEURON_LAYER_KINDS
    return Layer(
        id=draft.id,
        name=draft.name,
        op=draft.op,
        kind=draft.kind,
        depth=draft.depth,
        first_unit=draft.first,
        n_units=draft.count,
        n_params=draft.n_params,
        n_zeros=draft.n_zeros,
        dtype=draft.dtype,
        activation_tensor=track.tensor if track is not None and neuron else None,
        activation_axes=track.axes if track is not None and neuron else None,
        split_by=draft.split_by if neuron else None,
    )


def shown_track(draft: LayerDraft) -> Track | None:
    """The branch that shows the layer's activations.

    The last element-wise tensor before a consumer reads it; where consumers read different tensors, the first
    one after a nonlinearity, else the raw output.
    """
    if len({track.tensor for track in draft.seen}) == 1:
        return draft.seen[0]
    return next((track for track in draft.seen if track.nonlinear), draft.raw)


def _columns(draft: LayerDraft) -> UnitColumns:
    track = shown_track(draft)
    if draft.kind in (LayerKind.INPUT, LayerKind.EMBEDDING):
        role = Role.INPUT
    else:
        role = Role.OUTPUT if draft.is_output else Role.HIDDEN
    return UnitColumns(
        layer=draft.id,
        role=role,
        bias=None if track is None else track.bias,
        scale=None if track is None else track.scale,
        shift=None if track is None else track.shift,
        activation=None if track is None else track.activation,
    )


class Lineage:
    """From what each layer of a growing graph is made, as far as shared weights are concerned."""

    def __init__(self) -> None:
        self._sources: dict[int, set[int]] = defaultdict(set)
        self._tensors: dict[int, set[str]] = defaultdict(set)
        self._first: dict[str, int] = {}
        self._shared: set[str] = set()
        self._counts: list[Mapping[str, int]] = []

    def reads(self, layer: int, sources: Iterable[int]) -> None:
        """Note the layers whose units lead into a layer."""
        self._sources[layer].update(sources)

    def uses(self, layer: int, tensor: str) -> None:
        """Note that a layer is made by a weight."""
        self._tensors[layer].add(tensor)
        if self._first.setdefault(tensor, layer) != layer:
            self._shared.add(tensor)

    def are_steps(self, layers: Sequence[int]) -> bool:
        """Whether different numbers of uses of a weight, one behind the other, lead to some layers."""
        if len(layers) < 2 or not self._shared:
            return False
        self._count(max(layers))
        found = [self._counts[layer] for layer in layers]
        chained = {t for counts in found for t, n in counts.items() if n > 1}
        return any(len({counts.get(t, 0) for counts in found}) > 1 for t in chained)

    def _count(self, last: int) -> None:
        """Longest chain of uses of each weight that leads to every layer up to `last`; edges lead upwards."""
        for layer in range(len(self._counts), last + 1):
            counts: dict[str, int] = {}
            for source in self._sources[layer]:
                if source < layer:
                    for tensor, n in self._counts[source].items():
                        counts[tensor] = max(counts.get(tensor, 0), n)
            for tensor in self._tensors[layer]:
                counts[tensor] = counts.get(tensor, 0) + 1
            self._counts.append(counts)
