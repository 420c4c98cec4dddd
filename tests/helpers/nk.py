"""NK landscapes: the family with known answers on which discrete ruggedness statistics are checked.

f(x) = (1/N) sum_i c_i(x_i, x_{i+1}, .., x_{i+K}) with independent uniform tables c_i (Kauffman and Levin
1987, Journal of Theoretical Biology 128:11); neighbours are adjacent, with wrap-around. The autocorrelation
of one landscape centred by its own mean is expected to be 1 - ((K + 1)/N) 2^{K+1}/(2^{K+1} - 1); the
textbook's 1 - (K + 1)/N is centred by the mean over the ensemble.
"""

import numpy as np
from numpy.typing import NDArray


def nk_landscape(n: int, k: int, *, seed: int) -> NDArray[np.float64]:
    """Return the values of one NK landscape at all 2^n states.

    Args:
        n: Bits, 1 .. 20.
        k: Interacting neighbours of each bit, 0 .. n - 1.
        seed: Of the tables.

    Returns:
        (2^n,) values in [0, 1]; bit i of the index is x_i.

    Example:
        >>> nk_landscape(3, 0, seed=0).shape
        (8,)
    """
    tables = np.random.default_rng(seed).uniform(size=(n, 2 ** (k + 1)))
    states = np.arange(2**n)
    values = np.zeros(2**n)
    for i in range(n):
        context = sum(((states >> ((i + j) % n)) & 1) << j for j in range(k + 1))
        values += tables[i, context]
    return values / n


def expected_rho(n: int, k: int) -> float:
    """Return the expected autocorrelation at lag 1 of one landscape centred by its own mean.

    Example:
        >>> expected_rho(10, 0)
        0.8
    """
    size = 2.0 ** (k + 1)
    return 1 - (k + 1) / n * size / (size - 1)
