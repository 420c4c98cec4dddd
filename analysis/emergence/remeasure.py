"""Activity measured again: the model runs with drawn weights on the inputs of the trace."""

from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from types import TracebackType
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.rules import activity_scores
from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.nulls import WeightDraw
from emergraph.analysis.emergence.options import MOVING_NULLS, NullKind
from emergraph.analysis.emergence.resampled_weights import MovedWeights, with_noise
from emergraph.analysis.emergence.rewiring import WeightNull
from emergraph.analysis.modelruns.files import ModelFiles, ReplacedSource, model_of
from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.onnxfile import OnnxFile
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import Prepared, given_samples, random_samples
from emergraph.exporters.traces.running import Batching, SampleRunner
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.exporters.traces.statistics import UnitStatistics, kept_samples
from emergraph.exporters.traces.targets import targets_of
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.restore import restore_tensor

Array = NDArray[np.generic]
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
        for layer in self._graph.layers:
            was, now = (t.statistic("mean_abs")[layer.units] for t in (trace, again))
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
