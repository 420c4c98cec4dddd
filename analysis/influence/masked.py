"""A model whose units can all be replaced at once, to see what is left of its behaviour."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.influence.edgesites import Site, with_edges
from emergraph.analysis.influence.layerrun import SLOT_TOLERANCE, Model, spread
from emergraph.analysis.influence.options import Baseline
from emergraph.analysis.influence.slots import agrees
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.pooling import Codes, pooled
from emergraph.exporters.runtime.refusals import ModelRefusedError
from emergraph.exporters.runtime.replacing import replacing
from emergraph.exporters.traces.targets import Target

Array = NDArray[np.generic]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class MaskedModel:
    """Runs of a model in which any set of units goes on, and all others are replaced.

    All samples share a run along the batch axis if that gives what each gives alone.
    """

    def __init__(
        self,
        model: Model,
        layers: Sequence[Target],
        output: str,
        *,
        n: int,
        baseline: Baseline,
        seed: int,
        codes: Mapping[str, Codes],
        sites: Sequence[Site] = (),
    ) -> None:
        """Run the model on its first n samples, for the baselines, and load it with masks."""
        self._model, self._layers, self._n, self._sites = model, layers, n, sites
        run = model.prepared.run
        tensors = list(dict.fromkeys(str(one.tensor) for one in layers))
        self._clean = self._activations(tensors)
        changed, self._names = replacing(run.flat, tensors, run.values)
        self._output = self._names[output].output if output in self._names else output
        self._values = [self._baselines(one, baseline, seed, codes.get(str(one.tensor))) for one in layers]
        self.mean_abs = np.concatenate(
            [
                np.mean([pooled(each[str(one.tensor)], one.axes).mean_abs[0] for each in self._clean], axis=0)
                for one in layers
            ]
        )
        changed = with_edges(changed, sites)
        model.load(assemble(changed, [self._output], model.source), many_runs=True)
        self.n_runs = 0
        self._edges: Bools | None = None
        self.together = False
        self.together = self._may_share()

    @property
    def n_units(self) -> int:
        """Units that can be replaced, layer by layer."""
        return sum(one.n_units for one in self._layers)

    @property
    def layer_of(self) -> NDArray[np.int64]:
        """(n_units,) the number of each unit's layer."""
        return np.repeat([one.layer for one in self._layers], [one.n_units for one in self._layers])

    def outputs(self, kept: Bools, edges: Bools | None = None) -> list[Floats]:
        """The output of every sample when only some units go on, and some edges.

        Args:
            kept: (n_units,) which units; of all layers, one layer behind the other.
            edges: (n_edges,) which edges of the sites; all by default.
        """
        self._edges = edges
        masks: dict[str, Array] = {}
        start = 0
        for layer in self._layers:
            own = kept[start : start + layer.n_units]
            start += layer.n_units
            masks[self._names[str(layer.tensor)].mask] = own
        if self.together:
            whole = self._run(range(self._n), masks)
            return [np.asarray(one, np.float64) for one in whole]
        return [np.asarray(self._one(k, masks), np.float64) for k in range(self._n)]

    def _one(self, sample: int, masks: Mapping[str, Array]) -> Array:
        found = self._run([sample], masks)
        return found[0] if found.ndim > 1 and found.shape[0] == 1 else found

    def _run(self, samples: Sequence[int], masks: Mapping[str, Array]) -> Array:
        fixed = self._model.prepared.fixed
        asked = list(samples) if fixed is None else list(samples) * fixed
        feeds = dict(self._model.prepared.samples.feeds(asked))
        for layer, values in zip(self._layers, self._values, strict=True):
            tensor, names = self._clean[samples[0]][str(layer.tensor)], self._names[str(layer.tensor)]
            feeds[names.mask] = spread(masks[names.mask], tensor, layer.axes)
            if isinstance(values, list):
                chosen = [values[k] for k in samples]
                feeds[names.value] = chosen[0] if len(chosen) == 1 else np.concatenate(chosen)
            else:
                feeds[names.value] = spread(values, tensor, layer.axes)
        for site in self._sites:
            feeds |= site.feeds(self._edges, samples)
        self.n_runs += 1
        found = self._model.fetch(feeds, [self._output])[self._output]
        return found[:1] if fixed is not None and found.ndim and found.shape[0] == fixed else found

    def _activations(self, tensors: Sequence[str]) -> list[dict[str, Array]]:
        """What every layer gives, sample by sample."""
        model, flat = self._model, self._model.prepared.run.flat
        given = {one.name for one in flat.inputs}
        made = [name for name in tensors if name not in given]
        model.load(assemble(flat, made, model.source))
        found = []
        for k in range(self._n):
            feeds = model.feeds(k)
            arrays = model.fetch(feeds, made)
            found.append({name: arrays[name] if name in arrays else feeds[name] for name in tensors})
        return found

    def _baselines(
        self, layer: Target, baseline: Baseline, seed: int, codes: Codes | None
    ) -> Array | list[Array]:
        tensor = str(layer.tensor)
        dtype = self._clean[0][tensor].dtype
        if baseline is Baseline.RESAMPLE:
            shift = 1 + seed % max(1, self._n - 1)
            return [self._clean[(k + shift) % self._n][tensor] for k in range(self._n)]
        if baseline is Baseline.ZERO:
            return np.full(layer.n_units, 0.0 if codes is None else codes.zero).astype(dtype)
        means = np.mean([pooled(each[tensor], layer.axes).mean[0] for each in self._clean], axis=0)
        return np.asarray(np.rint(means) if dtype.kind in "iu" else means).astype(dtype)

    def _may_share(self) -> bool:
        """Whether all samples in one run give what each gives alone, whole and with every second unit."""
        if self._n < 2 or self._model.prepared.fixed is not None:
            return False
        if any(axis != 0 for axis in self._model.prepared.samples.axes.values() if axis is not None):
            return False
        n_edges = sum(int(site.which.max()) + 1 for site in self._sites[-1:])
        every_second = np.arange(n_edges) % 2 == 0 if n_edges else None
        for kept in (np.ones(self.n_units, bool), np.arange(self.n_units) % 2 == 0):
            self.together = False
            alone = self.outputs(kept, every_second)
            self.together = True
            try:
                found = self.outputs(kept, every_second)
            except (ModelRefusedError, ValueError):
                return False
            pairs = zip(found, alone, strict=False)
            if len(found) != len(alone) or not all(agrees(a, b, SLOT_TOLERANCE) for a, b in pairs):
                return False
        return True
