"""Scores from gradients: SNIP, Taylor and first-order gates, for modules with labelled samples.

With g the gradient of the loss by a weight w: SNIP is |g w| (arXiv 1810.02340, eq. 4-5, up to a constant
factor), Taylor is (g w)**2 (arXiv 1906.10771, eq. 8). A kernel or a unit takes the sum of |g w| over its
weights, or (sum of g w)**2. A gate that multiplies a unit's pre-activation z has the derivative
dL/dz z = sum of g w over the unit's weights and bias, so its first-order score is the absolute value of that
sum (arXiv 1611.06440, eq. 5, on pre-activations).
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, Floats
from emergraph.analysis.edgesets.kernel_parameters import parameters_behind
from emergraph.analysis.labels import are_probabilities, class_labels
from emergraph.analysis.modelruns.samples import IN_MEMORY, LabelledSamples, kept_name
from emergraph.analysis.pruning.items import Items, TensorValues
from emergraph.analysis.pruning.options import Criterion, PruningUnit
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.pytorch.tensors import require_torch
from emergraph.graphstore.text import first_line, printable

if TYPE_CHECKING:
    import torch

Array = NDArray[np.generic]
Products = Mapping[str, Floats]
"""Parameter tensor -> gradient times value, element by element."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModuleData(LabelledSamples):
    """A module that the graph was exported from, and labelled samples: what gradients are taken of.

    Samples have the names of the arguments of `forward`; one array may have any name.
    """

    module: "str | torch.nn.Module"
    """The module, or "package.module:factory", whose code runs."""
    weights: Path | None = None
    """Weights for the module of a factory; read without running anything."""
    root: Path | None = None
    """Folder inside which files of those weights may be symbolic links."""

    def kept(self) -> dict[str, object]:
        """Return what a run keeps of them."""
        module = self.module if isinstance(self.module, str) else IN_MEMORY
        return {"module": module, "weights": kept_name(self.weights), **super().kept()}


def gradient_products(data: ModuleData) -> Products:
    """Gradient times value of every parameter, of the mean cross-entropy over the samples.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: There are no labels, or the factory makes no module.
        InvalidInputError: The samples do not fit the module, or labels its output.
    """
    torch = require_torch()
    if data.classes is None or not data.arrays:
        raise UsageError(
            "criteria of gradients need the loss: give samples and their classes with --inputs and --labels"
        )
    module = _module(data).eval()
    names = list(inspect.signature(module.forward).parameters)
    arrays = {name: torch.from_numpy(np.array(array)) for name, array in data.arrays.items()}
    given = arrays if set(arrays) <= set(names) else dict(zip(names, arrays.values(), strict=False))
    parameters = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
    for parameter in parameters.values():
        parameter.requires_grad = True
    try:
        with torch.enable_grad():
            output = module(**given)
            logits = output.reshape(-1, output.shape[-1])
            wanted = class_labels(np.reshape(data.classes, -1), logits.shape[-1], ignored=data.ignore_label)
            counted = torch.from_numpy(wanted.counted)
            classes = torch.from_numpy(wanted.classes)[counted]
            if are_probabilities(output.detach().numpy()):  # they get no second softmax
                logs = logits[counted].clamp_min(torch.finfo(logits.dtype).tiny).log()
                loss = torch.nn.functional.nll_loss(logs, classes)
            else:
                loss = torch.nn.functional.cross_entropy(logits[counted], classes)
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        said = printable(first_line(error), limit=160)
        raise InvalidInputError(f"the module's loss cannot be computed on the samples: {said}") from error
    return {
        name: np.asarray((g * p).detach().double().numpy())
        for (name, p), g in zip(parameters.items(), found, strict=True)
        if g is not None
    }


def _module(data: ModuleData) -> "torch.nn.Module":
    import copy

    import torch

    from emergraph.exporters.pytorch.factory import load_module

    module = load_module(data.module)[0] if isinstance(data.module, str) else copy.deepcopy(data.module)
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"module: expected a torch.nn.Module or its factory, got {type(module).__name__}")
    if data.weights is not None:
        from emergraph.exporters.pytorch.weights import load_weights
        from emergraph.exporters.weightfiles.reader import read_weights

        load_weights(module, read_weights(data.weights, root=data.root))
    return module


def gradient_scores(
    criterion: Criterion, items: Items, products: Products, tensor_values: TensorValues
) -> Floats:
    """(n_items,) scores; NaN, which is removed last, where a tensor has no gradient.

    Args:
        criterion: snip, taylor or gate.
        items: What can be removed; units for gate.
        products: From `gradient_products`.
        tensor_values: The graph's parameter tensors.

    Raises:
        UsageError: No prunable tensor of the graph is a parameter of the module.
    """
    total, absolute = _edge_sums(items, products, tensor_values)
    if np.isnan(total).all():
        raise UsageError(
            "no tensor of the graph is a parameter of the module: export the module itself, as in "
            "`emergraph export PACKAGE.MODULE:FACTORY STORE`"
        )
    if items.unit is PruningUnit.UNIT:
        return _of_units(criterion, items, products, total, absolute)
    if not items.taps:
        return np.asarray(absolute[items.edge] if criterion is Criterion.SNIP else total[items.edge] ** 2)
    scored = []
    for block in items.blocks:
        taps = items.taps.get(block.block.id)
        product = products.get(block.block.tensor or "")
        if taps is None or product is None:
            part = absolute[block.edges] if criterion is Criterion.SNIP else total[block.edges] ** 2
            scored.append(part if taps is None else np.full(len(taps.edge), np.nan))
        else:
            own = product.reshape(-1)[taps.element]
            scored.append(np.abs(own) if criterion is Criterion.SNIP else own**2)
    return np.concatenate(scored)


def _edge_sums(items: Items, products: Products, values: TensorValues) -> tuple[Floats, Floats]:
    """(n_edges,) sums of g w and of |g w| over what is behind each edge; copies of a tensor are NaN."""
    total, absolute = (np.full(items.table.n_edges, np.nan) for _ in range(2))
    for block in items.blocks:
        product = products.get(block.block.tensor or "")
        if product is None:
            continue
        taps = parameters_behind(block, items.table.graph, values(block.block.tensor or ""), shared=True)
        if taps is None:
            continue
        own = product.reshape(-1)[taps.element]
        n = len(block.src)
        total[block.edges] = np.bincount(taps.edge, weights=own, minlength=n)
        absolute[block.edges] = np.bincount(taps.edge, weights=np.abs(own), minlength=n)
    return total, absolute


def _of_units(
    criterion: Criterion, items: Items, products: Products, total: Floats, absolute: Floats
) -> Floats:
    graph = items.table.graph
    sums, sizes = np.zeros(graph.n_units), np.zeros(graph.n_units)
    for block in items.blocks:
        sums += np.bincount(block.dst, weights=total[block.edges], minlength=graph.n_units)
        sizes += np.bincount(block.dst, weights=absolute[block.edges], minlength=graph.n_units)
        if criterion is Criterion.GATE:
            _add_bias(block, items, products, sums)
    if criterion is Criterion.SNIP:
        return np.asarray(sizes[items.edge])
    return np.asarray(np.abs(sums[items.edge]) if criterion is Criterion.GATE else sums[items.edge] ** 2)


def _add_bias(block: BlockTable, items: Items, products: Products, sums: Floats) -> None:
    """The bias beside a weight, by PyTorch's names."""
    layer = items.table.graph.layers[block.target]
    name = (block.block.tensor or "").removesuffix("weight") + "bias"
    bias = products.get(name)
    if bias is not None and bias.size == layer.n_units and (block.block.tensor or "").endswith("weight"):
        sums[layer.units] += bias.reshape(-1)


Scorer = Callable[[Criterion, Items], Floats]
"""Scores of criteria that need more than the graph."""


def scorer_of(data: ModuleData, tensor_values: TensorValues) -> Scorer:
    """Scores for criteria of gradients, of one module and its samples."""
    products = gradient_products(data)
    return lambda criterion, items: gradient_scores(criterion, items, products, tensor_values)
