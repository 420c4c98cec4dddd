"""The weights between two lists of units as a matrix."""

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.ordering import positions_in
from emergraph.errors import UsageError
from emergraph.graphstore.blockinfo import BlockInfo
from emergraph.graphstore.reader import GraphReader


def block_matrix(reader: GraphReader, block: BlockInfo) -> NDArray[np.float64]:
    """Return the (n_src, n_dst) weights of a block that was written as a matrix; zero where there is no edge.

    Raises:
        UsageError: The block was not written as a matrix.
    """
    if block.src_units is None or block.dst_units is None:
        raise UsageError(f"block {block.id} is not a matrix: it has no list of source and target units")
    edges = reader.block_edges(block, columns=("src", "dst", "weight"))
    matrix = np.zeros((len(block.src_units), len(block.dst_units)))
    rows, columns = positions_in(block.src_units, edges["src"]), positions_in(block.dst_units, edges["dst"])
    matrix[rows, columns] = edges["weight"]
    return matrix
