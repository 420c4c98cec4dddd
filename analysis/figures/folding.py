"""Repeated blocks of layers, which a picture shows once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

LEAST = 3
"""Copies from which a block is folded: two can be looked at side by side."""
LONGEST = 200
"""Layers of a block that is looked for."""


@dataclass(frozen=True)
class Fold:
    """Layers `start` to `start + size * times - 1`, in order, are `times` copies of the first `size`."""

    start: int
    size: int
    times: int

    @property
    def saved(self) -> int:
        """Layers that need not be drawn."""
        return self.size * (self.times - 1)

    @property
    def end(self) -> int:
        """The first layer behind it."""
        return self.start + self.size * self.times

    def first(self, place: int) -> int:
        """The place in the first copy that stands for a place in any of them; others stand for themselves."""
        inside = self.start <= place < self.end
        return self.start + (place - self.start) % self.size if inside else place


Same = Callable[[int, int], bool]
"""Whether a layer is as the one that is a number of places before it."""


def find_folds(n: int, same: Same) -> list[Fold]:
    """Return the repeats that save most, from the first on, none of which overlap.

    Args:
        n: Layers.
        same: Whether layer `place` is as layer `place - size`.

    Example:
        >>> text = "xababababy"
        >>> find_folds(len(text), lambda place, size: text[place] == text[place - size])
        [Fold(start=1, size=2, times=4)]
    """
    found: list[Fold] = []
    gaps = [(0, n)]
    while gaps:
        begin, end = gaps.pop()
        best = _largest(begin, end, same)
        if best is not None:
            found.append(best)
            gaps += [(begin, best.start), (best.end, end)]
    return sorted(found, key=lambda fold: fold.start)


def _largest(begin: int, end: int, same: Same) -> Fold | None:
    """The repeat within a range that saves most; of equal ones, the one with the smallest block."""
    best: Fold | None = None
    for size in range(1, min(LONGEST, (end - begin) // LEAST) + 1):
        run = 0  # places in a row that are as the one `size` before
        for place in range(begin + size, end + 1):
            if place < end and same(place, size):
                run += 1
                continue
            times = 1 + run // size
            fold = Fold(place - run - size, size, times)
            if times >= LEAST and (best is None or fold.saved > best.saved):
                best = fold
            run = 0
    return best


def folds_of(layers: Sequence[Mapping[str, object]], blocks: Iterable[tuple[int, int, str]]) -> list[Fold]:
    """Return the repeated blocks of a graph.

    Two layers are copies where operation, kind and sizes are equal, and edges of the same kinds lead into
    them from layers that are as far back, or from one and the same layer (a mask that all blocks read).

    Args:
        layers: Rows with id, op, kind, n_units and n_params, in order.
        blocks: Source and target layer and kind of every block of edges.
    """
    place = {layer["id"]: number for number, layer in enumerate(layers)}
    about = [tuple(layer[name] for name in ("op", "kind", "n_units", "n_params")) for layer in layers]
    sources: list[list[tuple[str, int]]] = [[] for _ in layers]
    for source, target, kind in blocks:
        sources[place[target]].append((kind, place[source]))
    ordered = [sorted(entries) for entries in sources]

    def same(at: int, size: int) -> bool:
        if about[at] != about[at - size] or len(ordered[at]) != len(ordered[at - size]):
            return False
        before = set(ordered[at - size])
        return all(
            (kind, source) in before or (kind, source - size) in before for kind, source in ordered[at]
        )

    return find_folds(len(about), same)
