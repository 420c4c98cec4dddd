"""Gradients of a model: what activations give to a number of its output, to first order or along a path.

torch runs the model as a converter package writes it, and only where that computes what onnxruntime does.
"""

import heapq
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from emergraph.analysis.influence.layerrun import Model
from emergraph.errors import InvalidInputError, MissingExtraError
from emergraph.exporters.pytorch.tensors import require_torch
from emergraph.exporters.runtime.assembly import Assembly, assemble
from emergraph.exporters.runtime.flat_model import FlatModel, names_used
from emergraph.exporters.runtime.replacing import adding
from emergraph.graphstore.text import first_line

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

EXACT = 1e-5
"""Of the output's largest value: how far a converted model may be from what onnxruntime gives."""
ADDS_UP = 1e-4
"""Of the output's largest value: how far attributions along a path may be from the change at its ends."""
PARTS_ADD_UP = 10.0
"""How many times as much the absolute distances of parts of a path may sum to: most of them cancel."""
MOST_SLOPES = 2049
"""Gradients along the path of one layer in one sample."""
FEWEST_SLOPES = 9
PATH_BYTES = 1 << 28
"""What those gradients may take."""
CONVERTERS: dict[str, Callable[[Any, onnx.ModelProto], Any]] = {
    "onnx2pytorch": lambda package, model: package.ConvertModel(model, experimental=True),
    "onnx2torch": lambda package, model: package.convert(model),
}
"""By package, in the order in which they are tried."""


class NoGradient(Exception):  # noqa: N818 - a reason that is told, not an error
    """Why a layer has no attributions."""


class Attributed(NamedTuple):
    """What the elements of an activation give to a number, over their baseline."""

    values: Floats
    gap: float
    """How far their sum is from the change of that number between baseline and activation; of gradients, as a
    share of the output's largest value."""


class Gradients:
    """A model whose activations can be moved, with the gradient of one number of its output."""

    def __init__(
        self,
        model: Model,
        tensors: Sequence[str],
        output: str,
        own: Callable[[Array], Floats],
        clean: Sequence[Floats],
        counts: Sequence[Floats],
    ) -> None:
        """Convert the model, and compare it with what onnxruntime gave.

        Args:
            model: The model.
            tensors: Activations that will be moved.
            output: The output that is looked at.
            own: Takes the sample out of what a run gives for it.
            clean: The output of every sample, as onnxruntime computed it.
            counts: How much each element of it counts in the number that is looked at.

        Raises:
            MissingExtraError: torch or every converter is missing.
            InvalidInputError: No converter computes what the model does.
        """
        self._torch = require_torch("a gradient")
        self._model, self._own, self._clean, self._counts = model, own, clean, counts
        values = model.prepared.run.values
        chosen = [name for name in tensors if (kind := values[name].dtype) is not None and kind.kind == "f"]
        changed, self._names = adding(model.prepared.run.flat, chosen, values)
        self._inputs = [one.name for one in changed.inputs]
        self._still = {
            self._names[name]: np.zeros((1,) * len(values[name].shape or ()), values[name].dtype)
            for name in chosen
        }
        self._module: Any = None
        self._largest = max(float(np.abs(one).max(initial=0.0)) for one in clean)
        assembly = assemble(changed, [output], model.source)
        self.converter = self._convert(_with_weights(assembly, self._constants(changed)))

    def _constants(self, flat: FlatModel) -> dict[str, Array]:
        """What the model makes of its weights alone, by name: converters ask for constants."""
        known, used = set(flat.initializers), set()
        for node in flat.nodes:
            reads = names_used([node]) - {""}
            if reads <= known and not node.op_type.startswith(("Random", "Multinomial", "Bernoulli")):
                known.update(node.output)
            else:
                used |= reads
        wanted = sorted(used & known - set(flat.initializers) - {""})
        if not wanted:
            return {}
        self._model.load(assemble(flat, wanted, self._model.source))
        still = {name: zeros for name, zeros in self._still.items() if name in self._inputs}
        return self._model.fetch({**self._model.feeds(0), **still}, wanted)

    def _convert(self, proto: onnx.ModelProto) -> str:
        """Find a converter that computes the same, and keep its module."""
        reasons, missing = [], []
        for name, convert in CONVERTERS.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._module = convert(import_module(name), proto).eval()
                    worst = max(self._distance(k) for k in range(len(self._clean)))
            except ModuleNotFoundError as error:
                missing.append(str(error.name))
                continue
            except Exception as error:  # noqa: BLE001 - what converters raise has nothing in common
                reasons.append(f"{name}: {first_line(error)}")
                continue
            if worst <= EXACT:
                return name
            reasons.append(f"{name} differs by {worst:.2g} of the output's largest value")
        if not reasons:
            needed = f"{' or '.join(CONVERTERS)} ({', '.join(dict.fromkeys(missing))} missing)"
            raise MissingExtraError(
                f'gradients of a model file need {needed}: pip install "emergraph[gradients]"'
            )
        raise InvalidInputError(
            f"no converter computes what the model does, so it has no gradients ({'; '.join(reasons)}); "
            "--method knockout needs none"
        )

    def _distance(self, sample: int) -> float:
        found, clean = self._own(self._output(sample, {}).detach().numpy()), self._clean[sample]
        if found.shape != clean.shape:
            return float("inf")
        return float(np.abs(found - clean).max(initial=0.0)) / (self._largest or 1.0)

    def _output(self, sample: int, moved: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a tensor of torch
        """The output of one sample with some activations moved."""
        given = {**self._still, **self._model.feeds(sample)}
        arrays = [
            moved[name] if name in moved else self._torch.from_numpy(np.array(given[name]))
            for name in self._inputs
        ]
        found = self._module(*arrays)
        return found[0] if isinstance(found, list | tuple) else found

    def slope(self, tensor: str, sample: int, shift: Array) -> tuple[float, Floats]:
        """The number that is looked at with an activation moved, and its gradient there.

        Raises:
            NoGradient: The activation is no floats, or the converted model passes no gradient on to it.
        """
        name = self._names.get(tensor)
        if name is None:
            raise NoGradient("its activation is codes, or inside of an operation")
        moved = self._torch.from_numpy(shift.astype(self._still[name].dtype)).requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = self._output(sample, {name: moved})
        if not output.requires_grad:
            raise NoGradient("the converted model passes no gradient on to it")
        index = self._own(np.arange(output.numel()).reshape(output.shape)).astype(np.int64)
        counts = self._torch.from_numpy(self._counts[sample].ravel())
        number = (output.reshape(-1)[self._torch.from_numpy(index.ravel())].double() * counts).sum()
        (found,) = self._torch.autograd.grad(number, moved)
        return float(number.detach()), np.asarray(found.numpy(), np.float64)

    def first_order(self, tensor: str, sample: int, away: Floats) -> Floats:
        """Activation less baseline, times the gradient at the activation."""
        return np.asarray(away * self.slope(tensor, sample, np.zeros_like(away))[1])

    def integrated(self, tensor: str, sample: int, away: Floats) -> Attributed:
        """The same with the mean gradient on the straight way from the baseline."""

        def at(share: float) -> tuple[float, Floats]:
            return self.slope(tensor, sample, (share - 1) * away)

        most = int(np.clip(PATH_BYTES // (8 * max(1, away.size)), FEWEST_SLOPES, MOST_SLOPES))
        found = along_path(at, away, ADDS_UP * self._largest, most)
        return found._replace(gap=found.gap / (self._largest or 1.0))


def along_path(
    at: Callable[[float], tuple[float, Floats]], away: Array, least: float, most: int = MOST_SLOPES
) -> Attributed:
    """Integrate a gradient from 0 to 1 by Simpson's rule, in parts that are halved where they do not add up.

    What the number itself changes by over a part says how far its integral is off.

    Args:
        at: The number and its gradient at a share of the way.
        away: The whole way.
        least: Parts are halved until their distances sum to this, and their absolute values to ten times.
        most: Gradients that may be computed.
    """
    far = np.asarray(away, np.float64)
    order = count()
    known = {share: at(share) for share in (0.0, 0.5, 1.0)}
    parts: list[tuple[float, int, float, float]] = []
    gaps: dict[float, float] = {}

    def add(low: float, high: float) -> None:
        gaps[low] = known[high][0] - known[low][0] - float((far * _simpson(known, low, high)).sum())
        heapq.heappush(parts, (-abs(gaps[low]), next(order), low, high))

    def is_close() -> bool:
        found = np.fromiter(gaps.values(), np.float64)
        return bool(abs(found.sum()) <= least and np.abs(found).sum() <= PARTS_ADD_UP * least)

    add(0.0, 1.0)
    while not is_close() and len(known) + 2 <= most:
        _, _, low, high = heapq.heappop(parts)
        middle = (low + high) / 2
        for share in ((low + middle) / 2, (middle + high) / 2):
            known[share] = at(share)
        add(low, middle)
        add(middle, high)
    values = np.zeros(far.shape)
    for _, _, low, high in parts:
        values += far * _simpson(known, low, high)
    return Attributed(values, abs(known[1.0][0] - known[0.0][0] - float(values.sum())))


def _simpson(known: Mapping[float, tuple[float, Floats]], low: float, high: float) -> Floats:
    ends = known[low][1] + known[high][1]
    return np.asarray((high - low) * (ends + 4 * known[(low + high) / 2][1]) / 6)


def _with_weights(assembly: Assembly, constants: Mapping[str, Array]) -> onnx.ModelProto:
    """A model that holds the values of all its tensors, with some that nodes make as constants."""
    model = onnx.ModelProto()
    model.ParseFromString(assembly.model)
    weights = {one.slot: one for one in assembly.weights}
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = bytes(weights[tensor.name].run_bytes())
    made = {assembly.slots[name]: array for name, array in constants.items()}
    needed = {value.name for value in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if needed & set(node.output) - set(made):
            nodes.append(node)
            needed |= names_used([node])
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in made.items())
    unread = [one for one in model.graph.initializer if one.name not in needed]
    for tensor in unread:
        model.graph.initializer.remove(tensor)
    return model
