"""Large models in pieces: onnxruntime's time to load grows with nodes times outputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel, names_used
from emergraph.exporters.runtime.ordering import outer_names_read

SEGMENT_NODES = 4096
"""Nodes of one piece. A chain of 100 000 nodes takes 250 s at once and 20 s in pieces (2 cores)."""


class CannotCutError(Exception):
    """A value that is not a tensor would have to pass from one piece to another."""


@dataclass(frozen=True)
class Segment:
    """Some consecutive nodes of a model."""

    flat: FlatModel
    """The nodes and the initializers that they read; everything else that they read is an input."""
    reads: tuple[str, ...]
    """The inputs."""
    passes_on: tuple[str, ...]
    """Tensors of this segment that later ones read."""
    last_reads: tuple[str, ...]
    """Of the tensors that it reads: those that no later segment reads."""


def segments(flat: FlatModel, types: Mapping[str, int], max_nodes: int = SEGMENT_NODES) -> Iterator[Segment]:
    """Cut a model into pieces that can run one after the other.

    Args:
        flat: The model, in data order.
        types: Element types by tensor; filled in by the caller with the outputs of each segment before it
            asks for the next one.
        max_nodes: Nodes per piece.

    Raises:
        CannotCutError: A sequence or map would cross a cut; run the model as a whole.
    """
    pieces = [flat.nodes[start : start + max_nodes] for start in range(0, len(flat.nodes), max_nodes)]
    last_use: dict[str, int] = {}
    outer_reads = []
    for index, nodes in enumerate(pieces):
        read: dict[str, None] = {}
        for node in nodes:
            read.update(dict.fromkeys(sorted(outer_names_read(node))))
        outer_reads.append(read)
        last_use.update(dict.fromkeys(read, index))
    for index, nodes in enumerate(pieces):
        made = {name for node in nodes for name in node.output if name}
        reads = tuple(
            name for name in outer_reads[index] if name not in made and name not in flat.initializers
        )
        if any(not types[name] for name in reads):
            raise CannotCutError
        used = names_used(nodes)
        piece = replace(
            flat,
            nodes=nodes,
            inputs=tuple(FlatInput(name, types[name], None) for name in reads),
            outputs=(),
            initializers={name: flat.initializers[name] for name in used if name in flat.initializers},
        )
        passes_on = tuple(sorted(name for name in made if last_use.get(name, -1) > index))
        yield Segment(piece, reads, passes_on, tuple(name for name in reads if last_use[name] == index))
