"""The naive twin of path counting, and a store with every analysis in it."""

import pytest
from reportstores import analysed, dense_demo


def enumerate_paths(
    edges: list[tuple[int, int, int]], states: list[str], *, interior: str, weights: bool
) -> int:
    """Paths from an inactive to an active unit, one by one; a transparent unit is neither."""
    successors: dict[int, list[tuple[int, int]]] = {}
    for src, dst, times in edges:
        successors.setdefault(src, []).append((dst, times if weights else 1))

    def from_here(unit: int, so_far: int) -> int:
        total = 0
        for target, times in successors.get(unit, []):
            if states[target] == "active":
                total += so_far * times
            if interior == "any" or states[target] != "inactive":
                total += from_here(target, so_far * times)
        return total

    return sum(from_here(unit, 1) for unit, state in enumerate(states) if state == "inactive")


@pytest.fixture(scope="session")
def brute_force_paths():
    return enumerate_paths


@pytest.fixture(scope="session")
def analysed_store(tmp_path_factory):
    """A store with the demo's dense network and a small run of every analysis; not to be changed."""
    path = tmp_path_factory.mktemp("analysed") / "net.duckdb"
    analysed(path, dense_demo(), name="dense")
    return path
