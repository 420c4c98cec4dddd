"""Multitask sparse parity: many skills, each the parity of a few bits of its own (arXiv 2404.17563)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.skills.closedforms import Floats, skill_frequencies
from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class ParityTasks:
    """The skills and where their bits are.

    An input is a one-hot control part, which says the skill, and `bits` random bits. Skill k's function is
    `g_k = (-1)^(sum of its m bits)` where the control part says k, else 0.
    """

    frequencies: Floats
    """(n_skills,) P(k)."""
    relevant: NDArray[np.int64]
    """(n_skills, m) places of each skill's bits."""
    bits: int

    @classmethod
    def make(cls, *, n_skills: int, alpha: float, bits: int, m: int, seed: int) -> "ParityTasks":
        """Draw which bits each skill looks at.

        Raises:
            UsageError: More relevant bits than bits.
        """
        if not 1 <= m <= bits:
            raise UsageError(f"parity of {m} of {bits} bits: expected 1 to {bits}")
        rng = np.random.default_rng([seed, 1])
        relevant = np.stack([rng.choice(bits, m, replace=False) for _ in range(n_skills)])
        return cls(frequencies=skill_frequencies(n_skills, alpha), relevant=relevant, bits=bits)

    @property
    def n_skills(self) -> int:
        """Skills."""
        return len(self.frequencies)

    @property
    def width(self) -> int:
        """Numbers of one input."""
        return self.n_skills + self.bits

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draw inputs (n, width) with skills by their frequency, and g (n,) in {-1, 1}."""
        return self.of_skills(rng.choice(self.n_skills, n, p=self.frequencies), rng)

    def of_skills(
        self, skills: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draw one input for each of these skills, counted from 0."""
        n = len(skills)
        bits = rng.integers(0, 2, (n, self.bits))
        x = np.zeros((n, self.width), np.float32)
        x[np.arange(n), skills] = 1
        x[:, self.n_skills :] = bits
        odd = np.take_along_axis(bits, self.relevant[skills], 1).sum(axis=1) % 2
        return x, (1 - 2 * odd).astype(np.float32)
