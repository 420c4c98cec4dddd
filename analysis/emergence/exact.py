"""Exact path counts of any size, by counting modulo primes and the Chinese remainder theorem.

The reverse pass in float64 is exact while no partial sum reaches 2**53. Counting modulo primes small enough
for that keeps every bit, at the price of one column per prime in the same pass, and no Python integer is
touched before the very end.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emergraph.analysis.paths.reversepass import LayerSums, RowStates, Sweep, reverse_pass
from emergraph.analysis.paths.scaled import LOG10_BAND, Scaled
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import LimitError

FLOAT_BITS = 53
COLUMNS_PER_PASS = 64
MINIMUM_PRIME_BITS = 12


def exact_sums(graph: UnitGraph, states: RowStates, sweep: Sweep, counted: LayerSums) -> list[list[int]]:
    """The sums of `counted.starts` as exact integers, (n_layers, K).

    Args:
        graph: The graph that was counted.
        states: The states that were counted.
        sweep: The sweep that counted.
        counted: Its result, which says how large the numbers are.

    Raises:
        LimitError: A unit has so many paths into the next layers that primes would be too small (above
            2**40).
    """
    if small(counted.starts):
        return [[int(value) for value in row] for row in counted.starts.value.tolist()]
    needed_bits = int(_largest_log2(counted.starts)) + 4
    primes = _primes(needed_bits, _prime_bits(graph, states, counted.fan))
    per_pass = max(1, COLUMNS_PER_PASS // counted.starts.value.shape[1])
    residues = np.concatenate(
        [
            _residues(graph, states, sweep, primes[at : at + per_pass])
            for at in range(0, len(primes), per_pass)
        ]
    )
    return _from_residues(residues, primes)


def small(counts: Scaled) -> bool:
    """Whether float64 holds every entry exactly: sums of non-negative integers below 2**53."""
    return counts.band is None and bool(counts.value.sum(axis=0).max(initial=0.0) < 2.0**FLOAT_BITS)


def _residues(graph: UnitGraph, states: RowStates, sweep: Sweep, primes: Sequence[int]) -> np.ndarray:
    """(n_primes, n_layers, K) residues of the layer sums."""
    n_cases, n_interiors = states.active.shape[1], len(sweep.interiors)
    repeated = replace(
        states,
        active=np.tile(states.active, (1, len(primes))),
        end_layers=None if states.end_layers is None else np.tile(states.end_layers, len(primes)),
    )
    moduli = np.tile(np.repeat(np.array(primes, dtype=np.float64), n_cases), n_interiors)
    sums = reverse_pass(graph, repeated, replace(sweep, moduli=moduli, in_degree=None))
    by_prime = sums.starts.value.reshape(len(graph.layers), n_interiors, len(primes), n_cases)
    return by_prime.transpose(2, 0, 1, 3).reshape(len(primes), len(graph.layers), -1)


def _from_residues(residues: np.ndarray, primes: Sequence[int]) -> list[list[int]]:
    product = math.prod(primes)
    weights = [product // prime * pow(product // prime, -1, prime) for prime in primes]
    _, n_layers, n_columns = residues.shape
    whole = residues.astype(np.int64)
    return [
        [
            sum(weight * int(r) for weight, r in zip(weights, whole[:, layer, column], strict=True)) % product
            for column in range(n_columns)
        ]
        for layer in range(n_layers)
    ]


def _largest_log2(counts: Scaled) -> float:
    return float(counts.log10().max()) / LOG10_BAND * 512


def _prime_bits(graph: UnitGraph, states: RowStates, fan: float) -> int:
    """Bits of primes such that no sum of residues, each times a multiplicity or size, reaches 2**53."""
    n_units = graph.n_units if states.size is None else int(states.size.sum())
    bits = FLOAT_BITS - 1 - math.ceil(math.log2(max(fan, n_units, 2)))
    if bits < MINIMUM_PRIME_BITS:
        raise LimitError(
            f"Exact counts need sums of {max(fan, n_units):.3g} terms to stay below 2**53: use log10 instead"
        )
    return bits


def _primes(needed_bits: int, bits: int) -> list[int]:
    """Primes below 2**bits, the largest first, whose product exceeds 2**needed_bits."""
    primes: list[int] = []
    candidate = (1 << bits) - 1
    have = 0.0
    while have <= needed_bits:
        if is_prime(candidate):
            primes.append(candidate)
            have += math.log2(candidate)
        candidate -= 2
        if candidate < 3:
            raise LimitError(
                f"Exact counts of 2**{needed_bits} need more primes than there are below 2**{bits}"
            )
    return primes


def is_prime(n: int) -> bool:
    """Miller-Rabin with bases that decide every n below 3.4e14 (Jaeschke 1993)."""
    bases = (2, 3, 5, 7, 11, 13, 17)
    if n < 2:
        return False
    if n in bases:
        return True
    if any(n % base == 0 for base in bases):
        return False
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        power = pow(base, odd, n)
        if power in (1, n - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % n
            if power == n - 1:
                break
        else:
            return False
    return True
