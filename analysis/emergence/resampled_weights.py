"""Parameter tensors of a weight null: a model's own, with the weights where a draw has put them."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, read_edge_table
from emergraph.analysis.edgesets.kernel_parameters import kernel_elements
from emergraph.analysis.emergence.rewiring import WeightNull, is_randomised
from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.analysis.unitgraph import EdgeColumns, UnitGraph
from emergraph.errors import UsageError
from emergraph.graphstore.text import printable

Array = NDArray[np.generic]
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
        found = kernel_elements(block, self._graph, base, replace(block, src=src, dst=dst))
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
