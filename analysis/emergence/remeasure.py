"""Activity measured again: the model runs with drawn weights on the inputs of the trace."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, cached_property
from types import TracebackType
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.rules import activity_scores
from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.edgesets.edgetable import BlockTable, read_edge_table
from emergraph.analysis.edgesets.kernel_parameters import kernel_elements
from emergraph.analysis.emergence.nulls import WeightDraw
from emergraph.analysis.emergence.options import MOVING_NULLS, NullKind
from emergraph.analysis.emergence.rewiring import WeightNull, is_randomised
from emergraph.analysis.modelruns.files import ModelFiles, model_of
from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.analysis.unitgraph import EdgeColumns, UnitGraph
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import ReplacedSource, as_source
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import Prepared, given_samples, random_samples
from emergraph.exporters.traces.running import Batching, SampleRunner
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.exporters.traces.statistics import UnitStatistics, kept_samples
from emergraph.exporters.traces.targets import targets_of
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.restore import restore_tensor
from emergraph.graphstore.text import printable

Array = NDArray[np.generic]

# Parameter tensors of a weight null: a model's own, with the weights where a draw has put them.

Places = NDArray[np.int64]
TensorValues = Callable[[str], Array]


class MovedWeights:
    """Puts a draw's weights into the tensors that hold them; what stays the same is looked up once.

    Biases, scales and tables that no edge stands for stay as they are. So do the blocks of `kept`: a null has
    to leave their edges alone. Weights that are stored as codes move as what they stand for, and become the
    nearest codes of their new places.
    """

    def __init__(self, graph: UnitGraph, tensor_values: TensorValues, stored: StoredCodes) -> None:
        """Take the graph and its tensors.

        Args:
            graph: The graph as it is.
            tensor_values: Values of a tensor by name, as they are stored.
            stored: How the model's tensors are stored.
        """
        self._graph, self._stored_values, self._stored = graph, tensor_values, stored
        self._values = cache(lambda name: stored.weights(name, tensor_values(name)))

    @cached_property
    def _blocks(self) -> list[BlockTable]:
        table = read_edge_table(self._graph)
        return [b for b in table.blocks if is_randomised(b.block) and b.block.shared_with is None]

    @cached_property
    def _places(self) -> dict[int, Places]:
        """Elements behind the edges of each block that can be told apart, (n_edges, kernel size)."""
        found = {}
        for block in self._blocks:
            if block.block.tensor is not None:
                values = self._values(block.block.tensor)
                places = kernel_elements(block, self._graph, values, block)
                if places is not None:
                    found[block.block.id] = places[0]
        return found

    def kept(self, kind: WeightNull) -> frozenset[int]:
        """Ids of blocks that stay as they are.

        Their weights come out of several tensors, or cannot be told apart in theirs; or they are not matrices
        (convolutions in groups) and the null asks for other edges than the operation can have.

        Args:
            kind: Of the null.
        """
        rewired = kind is WeightNull.REWIRE
        roots = frozenset(
            b.block.id
            for b in self._blocks
            if b.block.id not in self._places or (rewired and b.block.src_units is None)
        )
        shared = frozenset(b.id for b in self._graph.blocks if b.shared_with in roots)
        return roots | shared

    def of_draw(self, drawn: UnitGraph, kind: WeightNull) -> dict[str, Array]:
        """Tensors by name, with the weights of a randomised graph.

        Args:
            drawn: From `rewiring.randomised_graph` with `keep` the blocks of `kept`; its edges have the
                column `origin`.
            kind: Of the null.

        Raises:
            UsageError: No weights of the graph can be put elsewhere.
        """
        kept = self.kept(kind)
        blocks = [block for block in self._blocks if block.block.id not in kept]
        if not blocks:
            raise UsageError(
                "no weights of the graph can be told apart in its tensors, so none can be put elsewhere: "
                "use the nulls of activity, or weight_noise"
            )
        found: dict[str, Array] = {}
        stream = drawn.iter_edges([block.block for block in blocks], columns=("src", "dst", "origin"))
        for block, (_, edges) in zip(blocks, stream, strict=True):
            name = str(block.block.tensor)
            base = self._values(name)
            was = self._places[block.block.id]
            now = self._elements(block, edges, base)
            flat = np.array(found.get(name, base), order="C").reshape(-1)
            flat[was] = 0
            flat[now] = base.reshape(-1)[was[edges["origin"]]]
            found[name] = flat.reshape(base.shape)
        dtypes = {name: self._stored_values(name).dtype for name in found}
        return {name: self._stored.codes(name, values, dtypes[name]) for name, values in found.items()}

    def _elements(self, block: BlockTable, edges: EdgeColumns, base: Array) -> Places:
        """Elements behind drawn edges, (n_edges, kernel size)."""
        if np.array_equal(edges["src"], block.src) and np.array_equal(edges["dst"], block.dst):
            return self._places[block.block.id]
        src, dst = (np.asarray(edges[name], dtype=np.int32) for name in ("src", "dst"))
        found = kernel_elements(block, self._graph, base, replace(block, cells=None, listed=(src, dst)))
        if found is None:
            raise UsageError(
                f"the weights of {printable(block.block.name, limit=60)!r} cannot be put elsewhere"
            )
        return found[1]


def with_noise(
    names: Iterable[str],
    tensor_values: TensorValues,
    size: float,
    rng: np.random.Generator,
    stored: StoredCodes,
) -> dict[str, Array]:
    """Matrices and kernels with Gaussian noise on every weight that is not exactly zero.

    Codes get noise as the weights that they stand for, and are rounded to codes again.

    Args:
        names: Tensors; those with less than two axes, those that are not numbers, and those that say how
            others are stored are left out.
        tensor_values: Values by name, as they are stored.
        size: Standard deviation, relative to the root mean square of each tensor.
        rng: Source of randomness.
        stored: How the model's tensors are stored.

    Raises:
        UsageError: No tensor is left, or the noise is below the steps of all that are.
    """
    found = {}
    for name in names:
        base = tensor_values(name)
        is_weight = base.dtype.kind in "fV" or stored.is_coded(name)
        if base.ndim < 2 or not is_weight or name in stored.numbers:
            continue
        wide = stored.weights(name, base).astype(np.float64)
        noisy = wide + rng.standard_normal(wide.shape) * (size * np.sqrt(np.mean(wide**2)))
        found[name] = np.where(wide == 0, base, stored.codes(name, noisy, base.dtype)).astype(base.dtype)
    if not any(np.any(found[name] != tensor_values(name)) for name in found):
        raise UsageError("no matrix or kernel of the model takes noise of this size")
    return found


BATCH = 32
TOLERANCE = 1e-3
"""How far the model's own activity may be from that of the trace, relative to the largest of a layer."""
KEPT_RULES = frozenset({ActivityRule.MAJORITY})
"""Rules that need the value of every sample."""


class ModelActivity:
    """Runs a graph's model with the weights of each draw; for `nulls.null_model`.

    Use it in a `with` statement: the model runs in one child process, which it holds.
    """

    def __init__(
        self,
        reader: GraphReader,
        graph: UnitGraph,
        files: ModelFiles,
        *,
        trace: str | int | None,
        rule: ActivityRule | str,
        threshold: float | None,
    ) -> None:
        """Prepare the inputs of the trace, and run the model as it is to see that they are the trace's.

        Args:
            reader: The graph in its store.
            graph: The same graph.
            files: The model's file and the inputs of the trace; a trace of random inputs needs none.
            trace: Name or id of the trace; None: the newest.
            rule: How activity is decided; the threshold is that of the observed activity.
            threshold: None: the rule's own.

        Raises:
            InvalidInputError: The file is not the graph's model, or the inputs are not those of the trace.
            UsageError: Inputs are missing, or the rule does not fit.
        """
        self._rule, self._threshold, self._graph = ActivityRule(rule), threshold, graph
        if self._rule in (ActivityRule.PER_SAMPLE, ActivityRule.WEIGHT_CHANGE):
            raise UsageError(
                f"Rule '{rule}' cannot be measured again: choose mean, mean_abs, any or majority"
            )
        file = model_of(reader, files.model, root=files.root)
        about = trace_row(reader, trace)
        prepared = trace_samples(file, files, about)
        self._prepared, self._base = prepared, as_source(file)
        self._targets = [
            t for t in targets_of(reader.layers()) if t.neurons and t.tensor in prepared.run.values
        ]
        self._values = cache(lambda name: restore_tensor(reader, name))
        self._names = tuple(reader.tensors()["name"])
        flat, source = prepared.run.flat, self._base
        self._stored = StoredCodes(flat, lambda name: source.array(flat.initializers[name]))
        self._moved = MovedWeights(graph, self._values, self._stored)
        self._limits = files.limits
        self._n_values = int(str(about["n_values"]))
        self._batching: Batching | None = None
        self._open = ExitStack()
        self._process = self._open.enter_context(ModelProcess(files.limits))
        try:
            self._check(UnitTrace.from_frame(reader.activations(trace), graph.n_units), str(about["name"]))
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        """Return itself; the child process is running already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End the child process."""
        self._open.__exit__(kind, error, where)

    def kept_blocks(self, kind: NullKind) -> frozenset[int]:
        """Ids of blocks whose weights cannot be put elsewhere; give them to `null_model` as `keep`."""
        return self._moved.kept(WeightNull(kind.value)) if kind in MOVING_NULLS else frozenset()

    def __call__(self, draw: WeightDraw) -> Activity:
        """The activity with the drawn weights.

        Raises:
            UsageError: The draw cannot be put into the model, or the rule looks at the weights themselves.
        """
        if draw.kind is NullKind.WEIGHT_NOISE:
            if self._rule is ActivityRule.CONTRIBUTION:
                raise UsageError(
                    "Rule 'contribution' looks at weights, which noise changes: choose another rule"
                )
            rng = np.random.default_rng([draw.seed, draw.draw])
            replaced = with_noise(self._names, self._values, draw.noise or 0.0, rng, self._stored)
        else:
            replaced = self._moved.of_draw(draw.graph, WeightNull(draw.kind.value))
        trace = self._run(replaced)
        scores = activity_scores(self._rule, draw.graph, trace=trace)
        return replace(scores.above(self._threshold), rule=self._rule)

    def _check(self, trace: UnitTrace, name: str) -> None:
        """Run the model as it is: its activity must be that of the trace."""
        again = self._run({})
        # of a trace that has no statistics over positions, only the means are those of today
        compared = "mean" if trace.n_positions is None else "mean_abs"
        for layer in self._graph.layers:
            was, now = (t.statistic(compared)[layer.units] for t in (trace, again))
            both = np.isfinite(was) & np.isfinite(now)
            scale = max(float(np.abs(was[both]).max(initial=0.0)), 1e-12)
            if both.any() and float(np.abs(was - now)[both].max()) > TOLERANCE * scale:
                raise InvalidInputError(
                    f"the model does not give trace '{name}' again on these inputs (layer "
                    f"'{layer.name}' differs): give the inputs that the trace was made with"
                )

    def _run(self, replaced: dict[str, Array]) -> UnitTrace:
        initializers = self._prepared.run.flat.initializers
        by_proto = {}
        for name, values in replaced.items():
            if name in initializers:  # what a branch or a constant node holds is not replaced
                by_proto[id(initializers[name])] = values
        if replaced and not by_proto:
            raise UsageError("none of the graph's tensors is in the model as it runs")
        n = self._prepared.samples.n
        kept = 0
        if self._rule in KEPT_RULES:
            kept = kept_samples(n, sum(t.n_units for t in self._targets), self._n_values)
        statistics = {t.layer: UnitStatistics(t.n_units, kept) for t in self._targets}
        runner = SampleRunner(
            self._prepared.run,
            ReplacedSource(self._base, by_proto),
            self._prepared.samples,
            self._targets,
            self._limits,
        )
        self._batching = runner.record(
            statistics,
            BATCH,
            self._prepared.fixed,
            None,
            batching=self._batching,
            process=self._process,
        )
        frames = [statistics[t.layer].frame(t.first_unit) for t in self._targets]
        return UnitTrace.from_frame(pl.concat(frames), self._graph.n_units, name="again")


def trace_row(reader: GraphReader, trace: str | int | None) -> dict[str, object]:
    """What is known about a trace, the newest by default.

    Raises:
        UsageError: There is no such trace.
    """
    traces = reader.traces()
    if trace is None:
        rows = traces.tail(1)
    else:
        rows = traces.filter((pl.col("name") == str(trace)) | (pl.col("id").cast(pl.String) == str(trace)))
    if not rows.height:
        reader.activations(trace)  # raises, and says which traces there are
        raise UsageError("The graph has no trace")
    return rows.tail(1).to_dicts()[0]


def trace_samples(file: OnnxFile, files: ModelFiles, about: dict[str, object]) -> Prepared:
    """The inputs of a trace, ready to run on again.

    Args:
        file: The model.
        files: The inputs; a trace of random ones needs none.
        about: From `trace_row`.

    Raises:
        UsageError: Inputs are missing.
    """
    options = TraceOptions(run_limits=files.limits)
    if files.arrays is not None:
        return given_samples(file, files.arrays, options)
    if about["kind"] != "random":
        raise UsageError(
            f"Trace '{about['name']}' was made on inputs of a file: give it (--inputs FILE.npz), "
            "so that the model can run on them again"
        )
    return random_samples(file, RandomInputs(int(str(about["n_samples"])), int(str(about["seed"]))), options)
