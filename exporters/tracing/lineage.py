"""Which layers are steps of an unrolled recurrence: they use one weight again on what it made before."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence


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
