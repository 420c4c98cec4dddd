"""What flows along edges on samples: terms of the sums into units, means over samples and positions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.influence.attentions import written_attention
from emergraph.analysis.influence.edgesites import traced_sums
from emergraph.analysis.influence.layerrun import MEMORY_SHARE, Model
from emergraph.analysis.influence.options import ContributionOptions, ModelRunOptions
from emergraph.analysis.influence.recurrences import written_out
from emergraph.analysis.influence.terms import NotMeasured, Terms, Wanted, positions, terms_of
from emergraph.analysis.modelruns.files import model_of
from emergraph.analysis.modelruns.samples import LabelledSamples
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.pickedunits import picked_units
from emergraph.exporters.nodes import input_name
from emergraph.exporters.operations import Kind, kind_of, spec_of
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.quantization import dequantize, laid_out
from emergraph.exporters.runtime.sources import FileSource
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import given_samples
from emergraph.exporters.tracing.labels import NO_UNIT, compress, core
from emergraph.exporters.tracing.sums import Operand, Sum, Sums
from emergraph.graphstore.records import LayerKind
from emergraph.optionforms import parse_axes
from emergraph.steps import steps

if TYPE_CHECKING:
    from emergraph.analysis.access import GraphAccess

Array = NDArray[np.generic]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_PAIRS = 4_000_000
"""Pairs of units whose terms are in memory together."""
SUMS_TO = 1e-4
"""Of the sum of absolute terms: what does not sum to the operation's output up to this is not shown."""
BIAS = "bias"


@dataclass(frozen=True, kw_only=True, eq=False)
class ContributionResult(ShownInNotebooks):
    """What flows into units."""

    frame: pl.DataFrame
    """As in the table `edge_contributions`."""
    graph: str
    n_samples: int
    n_targets: int
    """Units whose terms were computed."""
    worst: float | None
    """Largest distance of a sum of terms from what the operation gave, over the sum of their absolute values;
    None where the model shows no such output."""
    unchecked: tuple[str, ...]
    """Layers inside of fused or quantized operations, whose sums are in no tensor."""
    left_out: dict[str, str]
    """Layers without terms, and why."""
    layer_names: dict[int, str]
    first_units: dict[int, int]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        names = ("graph", "n_samples", "n_targets", "worst", "left_out")
        plain: dict[str, object] = {name: getattr(self, name) for name in names}
        return {**plain, "unchecked": list(self.unchecked), "contributions": self.frame.to_dicts()}


class _Item(NamedTuple):
    """Units of one operation, measured together."""

    one: Sum
    wanted: Wanted

    @property
    def n_pairs(self) -> int:
        sources = sum(_n_labels(operand) for operand in self.one.operands)
        return max(1, sources) * len(self.wanted.units)


def measure_contributions(
    at: "GraphAccess", run: ModelRunOptions, asked: ContributionOptions
) -> ContributionResult:
    """Compute what each unit adds to others on samples.

    Args:
        at: The graph.
        run: The model and its inputs.
        asked: Which targets, and how many edges of each.

    Raises:
        InvalidInputError: The file is not the graph's model, or the inputs do not fit it.
        UsageError: An option does not fit the model.
    """
    assert run.model is not None  # noqa: S101 - checked
    picked = None if asked.units is None else picked_units(at.path, at.id, asked.units, option="--units")
    file = model_of(at.reader, run.model, root=at.root)
    options = TraceOptions(sample_axes=parse_axes(run.sample_axis), root=at.root)
    arrays = LabelledSamples(inputs=run.inputs).arrays or {}
    prepared = given_samples(file, arrays, options)
    with traced_sums(at, file, prepared) as sums, ModelProcess(RunLimits()) as process:
        model = Model(prepared, FileSource(file), process, RunLimits())
        n = min(prepared.samples.n, asked.samples or prepared.samples.n)
        bench = _Bench(at, model, sums, n, asked.top)
        bench.measure(bench.items(picked))
    return bench.result()


def _n_labels(operand: Operand) -> int:
    return 0 if operand.labels is None else core(compress(operand.labels)).size


class _Bench:
    """A model whose sums are taken apart."""

    def __init__(self, at: "GraphAccess", model: Model, sums: Sums, n: int, top: int) -> None:
        self._model, self._sums, self.n, self._top = model, sums, n, top
        self._at = at
        layers = at.reader.layers()
        self._names = dict(layers.select("id", "name").iter_rows())
        self._kinds = dict(layers.select("id", "kind").iter_rows())
        self._units = {
            int(k): np.arange(first, first + count)
            for k, first, count in layers.select("id", "first_unit", "n_units").iter_rows()
        }
        self.left_out: dict[str, str] = {}
        self._frames: list[pl.DataFrame] = []
        self._worst: float | None = None
        self._unchecked: dict[str, None] = {}
        self._n_targets = 0

    def items(self, picked: set[int] | None) -> list[_Item]:
        """What is measured, such that each part fits in memory."""
        by_layer = {layer: one for one in self._sums.found for layer in (one.layer, *one.layers)}
        chosen: dict[int, list[Ints]] = {}
        ones = {id(one): one for one in self._sums.found}
        for layer, units in self._units.items():
            own = units if picked is None else units[np.isin(units, list(picked))]
            if not len(own):
                continue
            if layer in by_layer:
                chosen.setdefault(id(by_layer[layer]), []).append(own)
            elif picked is not None or self._kinds[layer] not in _WITHOUT:
                self.left_out[self._names[layer]] = f"no sum makes its units ({self._kinds[layer]})"
        found: list[_Item] = []
        for key, parts in chosen.items():
            units = np.sort(np.concatenate(parts))
            whole = _Item(ones[key], Wanted(units))
            step = max(1, MOST_PAIRS * len(units) // whole.n_pairs)
            found += [_Item(whole.one, Wanted(units[k : k + step])) for k in range(0, len(units), step)]
        return found

    def measure(self, items: Sequence[_Item]) -> None:
        """Take the sums apart, as many at a time as fit in memory."""
        for part in self._parts(items):
            names = list(dict.fromkeys(name for item in part for name in self._reads(item.one)))
            given = {one.name for one in self._model.prepared.run.flat.inputs}
            made = [name for name in names if name not in given]
            if made:
                flat = self._model.prepared.run.flat
                self._model.load(assemble(flat, made, self._model.source), many_runs=True)
            ledgers = [_Ledger(item) for item in part]
            for k in steps(range(self.n), "samples"):
                feeds = self._model.feeds(k)
                arrays = {**feeds, **(self._model.fetch(feeds, made) if made else {})}
                for ledger in ledgers:
                    self._add(ledger, arrays)
            for ledger in ledgers:
                if ledger.reason is None:
                    self._close(ledger)

    def _parts(self, items: Sequence[_Item]) -> Iterator[list[_Item]]:
        values = self._model.prepared.run.values
        most_bytes = self._model.limits.memory_bytes // MEMORY_SHARE
        part: list[_Item] = []
        pairs = size = 0
        for item in items:
            why = self._unreadable(item.one)
            if why is not None:
                self._leave_out(item, why)
                continue
            own = sum(8 * prod(values[name].shape or ()) for name in self._reads(item.one))
            if part and (pairs + item.n_pairs > MOST_PAIRS or size + own > most_bytes):
                yield part
                part, pairs, size = [], 0, 0
            part.append(item)
            pairs, size = pairs + item.n_pairs, size + own
        if part:
            yield part

    def _leave_out(self, item: _Item, why: str) -> None:
        for layer in (item.one.layer, *item.one.layers):
            if np.isin(self._units[layer], item.wanted.units).any():
                self.left_out[self._names[layer]] = why

    def _unreadable(self, one: Sum) -> str | None:
        """Why what an operation reads cannot be had."""
        values = self._model.prepared.run.values
        for operand in _parts_of(one.operands):
            if operand.constant is not None or (operand.labels is None and not operand.name):
                continue
            known = values.get(operand.name)
            if not operand.name or known is None or known.shape is None or known.dtype is None:
                return "what it reads is made inside of another operation"
            coded = operand.zero is not None or operand.scale is not None
            if operand.labels is not None and known.dtype.itemsize == 1 and not coded:
                return "it reads codes inside of a quantized operation"
        return None

    def _reads(self, one: Sum) -> list[str]:
        """Tensors that are read, and the operation's own output, if the model shows it."""
        names = [part.name for part in _parts_of(one.operands) if part.constant is None and part.name]
        return list(dict.fromkeys([*names, *self._shown(one)]))

    def _shown(self, one: Sum) -> list[str]:
        values, flat = self._model.prepared.run.values, self._model.prepared.run.flat
        made = {name for node in flat.nodes for name in node.output}
        own = list(one.node.output[:2]) if one.layers else list(one.node.output[:1])
        return [name for name in own if name in made and name in values and values[name].shape is not None]

    def _add(self, ledger: "_Ledger", arrays: Mapping[str, Array]) -> None:
        if ledger.reason is not None:
            return
        one = ledger.item.one
        values = [_value(operand, arrays) for operand in one.operands]
        try:
            if one.layers:
                units = [self._units[layer] for layer in one.layers]
                write = written_attention if kind_of(one.node) is Kind.ATTENTION else written_out
                found = write(one, values, units, ledger.item.wanted)
                ledger.add(found.terms)
                ledger.positions = dict(zip(one.layers, found.positions, strict=True))
                self._check_outputs(ledger, found.outputs, arrays)
            else:
                ledger.add(terms_of(one, values, ledger.item.wanted))
                shown = self._shown(one)
                if shown and spec_of(one.node).codes_out is None:
                    ledger.expect(np.asarray(arrays[shown[0]], np.float64))
        except NotMeasured as reason:
            ledger.reason = str(reason)
            self._leave_out(ledger.item, str(reason))

    def _check_outputs(
        self, ledger: "_Ledger", outputs: Mapping[str, Floats], arrays: Mapping[str, Array]
    ) -> None:
        """What was written out is what the operation gives.

        Raises:
            NotMeasured: It is not.
        """
        for name, whole in outputs.items():
            if name not in arrays:
                continue
            found = np.asarray(arrays[name], np.float64)
            worst = float(np.abs(found - whole).max(initial=0.0)) if found.shape == whole.shape else np.inf
            if not worst <= SUMS_TO * max(1.0, float(np.abs(found).max(initial=0.0))):
                raise NotMeasured(f"written out, it differs by {worst:.2g} from what it gives")
            ledger.worst = max(ledger.worst or 0.0, worst)

    # Results

    def _close(self, ledger: "_Ledger") -> None:
        """Keep the rows of what was measured."""
        one, units = ledger.item.one, ledger.item.wanted.units
        raw = self._sums.raw.get(one.layer)
        bias = np.zeros(len(units))
        if raw is not None and raw.bias is not None and not one.layers:
            bias = np.asarray(raw.bias, np.float64)[units - self._units[one.layer][0]]
            bias = np.where(np.isnan(bias), 0.0, bias)  # what differs by position is no bias of the sum
        if one.layers:
            counts = np.ones(len(units), np.int64)
            for layer, count in ledger.positions.items():
                counts[np.isin(units, self._units[layer])] = count
        else:
            counts = positions(np.asarray(one.labels), units)
        rows = ledger.rows()
        terms = pl.DataFrame(
            {"src": np.full(len(units), NO_UNIT), "dst": units, "total": bias * counts * self.n}
        ).with_columns(size=pl.col("total").abs(), kind=pl.lit(BIAS))
        rows = (
            pl.concat([rows, terms.select(rows.columns)])
            .group_by("src", "dst", "kind", maintain_order=True)
            .sum()
        )
        if not one.layers:
            self._check(ledger, rows, bias, counts)
            if ledger.reason is not None:
                return
        if ledger.worst is None:
            self._unchecked[self._names[one.layer]] = None
        else:
            self._worst = max(self._worst or 0.0, ledger.worst)
        scale = pl.DataFrame({"dst": units, "over": counts * self.n})
        rows = rows.filter((pl.col("src") != NO_UNIT) | (pl.col("size") > 0)).join(scale, on="dst")
        whole = pl.col("size").sum().over("dst")
        rows = rows.with_columns(
            mean=pl.col("total") / pl.col("over"),
            mean_abs=pl.col("size") / pl.col("over"),
            share=pl.when(whole > 0).then(pl.col("size") / whole),
        )
        if self._top:
            order = pl.col("size").rank("ordinal", descending=True).over("dst", pl.col("kind") == BIAS)
            rows = rows.filter((order <= self._top) | (pl.col("kind") == BIAS))
        self._n_targets += len(units)
        self._frames.append(rows.select(*SCHEMA))

    def _check(self, ledger: "_Ledger", rows: pl.DataFrame, bias: Floats, counts: Ints) -> None:
        """The terms sum to the operation's own output, with the bias where the operation adds it."""
        if ledger.expected is None:
            return
        one, units = ledger.item.one, ledger.item.wanted.units
        sums = pl.DataFrame({"dst": units}).join(
            rows.group_by("dst").agg(pl.col("total").sum(), pl.col("size").sum()), on="dst", how="left"
        )
        inside = any(input_name(one.node, k) for k in spec_of(one.node).vectors)
        total = sums["total"].fill_null(0).to_numpy()
        total = total - (0 if inside else bias * counts * self.n)
        size = np.maximum(sums["size"].fill_null(0).to_numpy(), np.finfo(np.float32).tiny)
        worst = float((np.abs(total - ledger.expected) / size).max(initial=0.0))
        if not worst <= SUMS_TO:
            why = f"its terms do not sum to what {one.node.op_type} gives (off by {worst:.2g})"
            ledger.reason = why
            self._leave_out(ledger.item, why)
            return
        ledger.worst = worst

    def result(self) -> ContributionResult:
        """All rows, by target, the largest first."""
        frame = pl.concat(self._frames) if self._frames else pl.DataFrame(schema=SCHEMA)
        frame = frame.with_columns(
            src=pl.when(pl.col("src") != NO_UNIT).then(pl.col("src")), n=pl.lit(self.n, pl.Int64)
        ).sort("dst", "mean_abs", "src", "kind", descending=[False, True, False, False])
        return ContributionResult(
            frame=frame,
            graph=self._at.reader.name,
            n_samples=self.n,
            n_targets=self._n_targets,
            worst=self._worst,
            unchecked=tuple(self._unchecked),
            left_out=self.left_out,
            layer_names=self._names,
            first_units={layer: int(units[0]) for layer, units in self._units.items() if len(units)},
        )


_WITHOUT = frozenset({LayerKind.INPUT, LayerKind.HUB, LayerKind.OPAQUE, LayerKind.EMBEDDING})
"""Layers that nothing flows into, or that only normalise."""
SCHEMA = {
    "src": pl.Int64,
    "dst": pl.Int64,
    "kind": pl.String,
    "mean": pl.Float64,
    "mean_abs": pl.Float64,
    "share": pl.Float64,
}


def _parts_of(operands: Sequence[Operand]) -> Iterator[Operand]:
    for operand in operands:
        yield from (one for one in (operand, operand.scale, operand.zero) if one is not None)


def _value(operand: Operand, arrays: Mapping[str, Array]) -> Floats | None:
    """What an operation reads, as floats; None for a constant and for what is not there."""
    if operand.constant is not None or operand.name not in arrays:
        return None
    found = arrays[operand.name]
    if operand.scale is None and operand.zero is None:
        return np.asarray(found, bool if found.dtype == bool else np.float64)
    scale, zero = (None if one is None else _number(one, arrays) for one in (operand.scale, operand.zero))
    if zero is not None and zero.ndim == 1 and zero.size > 1:
        zero = laid_out(zero, found.shape, axis=-2)
    return np.asarray(dequantize(found, scale, zero, axis=-1), np.float64)


def _number(operand: Operand, arrays: Mapping[str, Array]) -> Array:
    return operand.constant.load() if operand.constant is not None else arrays[operand.name]


_SUMMED = {"src": pl.Int64, "dst": pl.Int64, "total": pl.Float64, "size": pl.Float64}


class _Ledger:
    """The terms of one part, summed over samples."""

    def __init__(self, item: _Item) -> None:
        self.item = item
        self.reason: str | None = None
        self.worst: float | None = None
        self.expected: Floats | None = None
        self.positions: dict[int, int] = {}
        """By layer, where the operation has several."""
        self._terms: list[Terms] = []

    def add(self, terms: Sequence[Terms]) -> None:
        """Add the terms of one sample; they are of the same edges, in the same order, for each."""
        if not self._terms:
            self._terms = [one._replace(total=np.array(one.total), size=np.array(one.size)) for one in terms]
            return
        for mine, one in zip(self._terms, terms, strict=True):
            np.add(mine.total, one.total, out=mine.total)
            np.add(mine.size, one.size, out=mine.size)

    def expect(self, output: Floats) -> None:
        """Add what the operation gave on one sample, unit by unit."""
        labels, units = self.item.one.labels, self.item.wanted.units
        assert labels is not None  # noqa: S101 - the operation has an output
        packed = compress(labels)
        inner = core(packed)
        same = tuple(k for k in range(packed.ndim) if inner.shape[k] == 1 and packed.shape[k] > 1)
        sums = np.broadcast_to(output, packed.shape).sum(axis=same, keepdims=True).ravel()
        place = np.minimum(np.searchsorted(units, inner.ravel()), len(units) - 1)
        hit = units[place] == inner.ravel()
        own: Floats = np.bincount(place[hit], sums[hit], len(units)).astype(np.float64)
        self.expected = own if self.expected is None else self.expected + own

    def rows(self) -> pl.DataFrame:
        """One row per term; biases and constants have no source."""
        frames = []
        for one in self._terms:
            src, dst, exists = np.broadcast_arrays(one.src, one.dst, one.exists)
            kept = exists | (src == NO_UNIT)
            columns = (src[kept], dst[kept], one.total[kept], one.size[kept])
            frame = pl.DataFrame(dict(zip(_SUMMED, columns, strict=True)), schema=_SUMMED)
            named = pl.when(pl.col("src") == NO_UNIT).then(pl.lit(BIAS)).otherwise(pl.lit(str(one.kind)))
            frames.append(frame.with_columns(kind=named))
        return pl.concat(frames) if frames else pl.DataFrame(schema={**_SUMMED, "kind": pl.String})


__all__ = ["BIAS", "ContributionResult", "measure_contributions"]
