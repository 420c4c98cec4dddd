"""Class labels from users: whole numbers within the classes of an output, or an ignored value."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import UsageError

Array = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """Labels that fit an output."""

    classes: NDArray[np.int64]
    """As given."""
    counted: NDArray[np.bool_]
    """Which of them are classes; the others carry the ignored value."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """Classes that can be looked up everywhere: 0 where none counts."""
        return np.where(self.counted, self.classes, 0)


def class_labels(labels: Array, n_classes: int, *, ignored: int | None = None) -> ClassLabels:
    """Check labels against the classes of an output.

    Args:
        labels: Of any shape.
        n_classes: Length of the output's axis of classes.
        ignored: Label to ignore, such as 255 or -100.

    Raises:
        UsageError: They are not whole numbers, some are outside of the classes, or all are ignored.

    Example:
        >>> class_labels(np.array([0, 255, 2]), 3, ignored=255).counted.tolist()
        [True, False, True]
    """
    given = np.asarray(labels)
    whole = given.dtype.kind in "iub" or (given.dtype.kind == "f" and bool(np.all(given == np.floor(given))))
    if not whole or not np.all(np.isfinite(given)):
        raise UsageError(f"labels: expected whole numbers, one per class, found {given.dtype} values")
    if given.size and not (int(given.min()) >= -(2**63) and int(given.max()) < 2**63):
        raise UsageError(f"labels: found up to {int(given.max())}, expected 0 to {n_classes - 1}")
    classes = given.astype(np.int64)
    counted = np.ones(classes.shape, dtype=np.bool_) if ignored is None else classes != ignored
    kept = classes[counted]
    if not kept.size:
        raise UsageError("labels: none is left to compare with" if classes.size else "labels: there are none")
    if kept.min() < 0 or kept.max() >= n_classes:
        outside = np.unique(kept[(kept < 0) | (kept >= n_classes)])
        hint = f"--ignore-label {outside[0]}" if outside.size == 1 else "--ignore-label N"
        raise UsageError(
            f"labels: found {kept.min()} to {kept.max()}, expected 0 to {n_classes - 1} for the "
            f"{n_classes} classes of the output; {hint} leaves out those that stand for no class"
        )
    return ClassLabels(classes, counted)


def are_probabilities(values: NDArray[np.generic]) -> bool:
    """Whether outputs are shares of classes on the last axis already: what comes out of a softmax.

    Example:
        >>> are_probabilities(np.array([[0.25, 0.75]])), are_probabilities(np.array([[0.9, 0.2]]))
        (True, False)
    """
    shares = np.asarray(values, dtype=np.float64)
    if not shares.size or not shares.ndim or shares.shape[-1] < 2:
        return False
    if not np.all((shares >= 0) & (shares <= 1 + 1e-4)):
        return False
    return bool(np.allclose(shares.sum(axis=-1), 1, atol=1e-3))
