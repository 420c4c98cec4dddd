"""Strengths where parameters or data are short instead of time (arXiv 2404.17563, sections 4 and 5)."""

import numpy as np
from numpy.typing import ArrayLike

from emergraph.analysis.skills.closedforms import Floats
from emergraph.analysis.skills.options import PARAMETERS_PER_SKILL, SAMPLES_PER_SKILL


def parameter_strength(
    parameters: ArrayLike, skill: ArrayLike, *, target: float = 1.0, per_skill: float = PARAMETERS_PER_SKILL
) -> Floats:
    """Return the strength of skill k with N parameters: `S clip((N - (k - 1) N_c) / N_c, 0, 1)`.

    The frequent skills are served first, each with N_c parameters.

    Args:
        parameters: N.
        skill: k, from 1.
        target: S.
        per_skill: N_c.

    Example:
        >>> parameter_strength([4, 6, 8], 2).tolist()
        [0.0, 0.5, 1.0]
    """
    n, k = np.asarray(parameters, np.float64), np.asarray(skill, np.float64)
    return np.asarray(target * np.clip((n - (k - 1) * per_skill) / per_skill, 0, 1))


def data_by_definition(
    samples: ArrayLike, *, target: float = 1.0, per_skill: float = SAMPLES_PER_SKILL
) -> Floats:
    """Return the strength of a skill of which d samples were seen: `S min(d / D_c, 1)`.

    What the paper's definition of a D_c-shot learner gives; `data_from_loss` is what its eq. 17 prints.

    Args:
        samples: d, of this skill; of D samples in all a skill has P(k) D.
        target: S.
        per_skill: D_c.
    """
    d = np.asarray(samples, np.float64)
    return np.asarray(target * np.clip(d / per_skill, 0, 1))


def data_from_loss(
    samples: ArrayLike, *, target: float = 1.0, per_skill: float = SAMPLES_PER_SKILL
) -> Floats:
    """Return the strength as printed in eq. 17: `S (1 - sqrt(1 - d / D_c))` up to d = D_c.

    It comes from a loss that falls linearly in d, `(S - R)^2 = S^2 (1 - d / D_c)`.
    """
    d = np.asarray(samples, np.float64)
    return np.asarray(target * (1 - np.sqrt(1 - np.clip(d / per_skill, 0, 1))))


def one_shot_loss(
    samples: ArrayLike, frequencies: Floats, *, target: float = 1.0, seen: float = 0.0
) -> Floats:
    """Return the expected loss of a learner that knows a skill from its first sample on.

    `E L = (S - r)^2 / 2 sum_k P(k) (1 - P(k))^D` with r the strength of a skill that was never seen.

    Args:
        samples: D, in all.
        frequencies: (n_skills,) P(k).
        target: S.
        seen: r.
    """
    d = np.asarray(samples, np.float64)[..., None]
    missing = np.exp(d * np.log1p(-frequencies)) if (frequencies < 1).all() else (1 - frequencies) ** d
    return np.asarray((target - seen) ** 2 / 2 * (frequencies * missing).sum(axis=-1))
