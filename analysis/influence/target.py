"""What is looked at when a unit is knocked out: the outputs as a whole, one number of them, the decision."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.choices import unknown
from emergraph.errors import UsageError

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

_INDEXED = re.compile(r"(?P<name>.*)\[(?P<inner>[-\d,\s]+)\]", re.DOTALL)
_NUMBERED = re.compile(r"(?P<name>.*):(?P<last>-?\d+)", re.DOTALL)
SUMS_TO_ONE = 1e-3
"""How far from 1 the sum of probabilities may be."""
LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Target:
    """One output, and which of its numbers."""

    output: str
    index: tuple[int, ...] = ()
    """Into a sample's output; empty for none."""
    last: int | None = None
    """Index of the last axis."""

    @property
    def is_indexed(self) -> bool:
        """Whether one number is looked at, and not the output as a whole."""
        return self.index != () or self.last is not None

    @classmethod
    def parsed(cls, text: str | None, outputs: Sequence[str]) -> "Target":
        """What a user wrote: NAME, NAME:INDEX or NAME[i,j]; the first output by default.

        Raises:
            UsageError: There is no such output.
        """
        if text is None or text in outputs:
            return cls(outputs[0] if text is None else text)
        if (found := _INDEXED.fullmatch(text)) is not None and found["name"] in outputs:
            parts = [part.strip() for part in found["inner"].split(",")]
            if all(re.fullmatch(r"-?\d+", part) for part in parts):
                return cls(found["name"], tuple(int(part) for part in parts))
        if (found := _NUMBERED.fullmatch(text)) is not None and found["name"] in outputs:
            return cls(found["name"], last=int(found["last"]))
        raise UsageError(unknown("output", text, outputs))

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse an index that a sample's output of this shape does not have.

        Raises:
            UsageError: It does not.
        """
        wanted = self.index if self.last is None else (*(0,) * (len(shape) - 1), self.last)
        fits = len(wanted) <= len(shape) and (self.last is None or bool(shape))
        if not fits or any(not -n <= k < n for k, n in zip(wanted, shape, strict=False)):
            named = f"[{','.join(map(str, self.index))}]" if self.last is None else f":{self.last}"
            raise UsageError(f"--target {self.output}{named}: a sample's output has shape {list(shape)}")

    def value(self, output: Floats, clean: Floats) -> float:
        """The number that is looked at, of one sample's output.

        Without an index: of several numbers along the last axis the one that was largest before the
        knock-out, else the mean.
        """
        return float(output[self._looked_at(clean)].mean())

    def counts(self, clean: Floats) -> Floats:
        """How much each element of a sample's output counts in that number."""
        chosen = self._looked_at(clean)
        return np.where(chosen, 1 / max(1, int(chosen.sum())), 0.0)

    def _looked_at(self, clean: Floats) -> NDArray[np.bool_]:
        chosen = np.zeros(clean.shape, bool)
        if self.last is not None:
            chosen[..., self.last] = True
        elif self.index:
            chosen[self.index] = True
        elif has_choices(clean):
            np.put_along_axis(chosen, clean.argmax(axis=-1)[..., None], values=True, axis=-1)
        else:
            chosen[...] = True
        return chosen


def has_choices(output: Floats) -> bool:
    """Whether the last axis of a sample's output holds several numbers to choose from."""
    return output.ndim > 0 and output.shape[-1] > 1


def is_distribution(outputs: Sequence[Floats]) -> bool:
    """Whether the last axis holds probabilities in all samples."""
    return all(
        has_choices(one) and bool((one >= 0).all()) and np.allclose(one.sum(axis=-1), 1, atol=SUMS_TO_ONE)
        for one in outputs
    )


@dataclass(frozen=True)
class Change:
    """How one sample's output differs from what it was."""

    effect: float
    """KL divergence in nats, or mean squared difference."""
    target: float
    decision: float
    """Share of its decisions that changed."""


@dataclass(frozen=True)
class Behaviour:
    """How outputs are compared with those of the model as it is."""

    target: Target
    distribution: bool

    @property
    def measure(self) -> str:
        """What an effect is."""
        return "kl" if self.distribution else "mse"

    def change(self, clean: Floats, found: Floats) -> Change:
        """Compare one sample's output with what it was."""
        with np.errstate(invalid="ignore", over="ignore"):
            moved = self.target.value(found, clean) - self.target.value(clean, clean)
            effect = _kl(clean, found) if self.distribution else float(np.square(found - clean).mean())
        return Change(effect, moved, float((_decisions(clean) != _decisions(found)).mean()))


def _kl(clean: Floats, found: Floats) -> float:
    log_clean, log_found = (np.log(np.maximum(one, LEAST_PROBABILITY)) for one in (clean, found))
    return max(0.0, float((clean * (log_clean - log_found)).sum(axis=-1).mean()))


def _decisions(output: Floats) -> NDArray[np.generic]:
    """The largest along the last axis; of single numbers, whether they are above 0.5 (in [0, 1]), or 0."""
    if has_choices(output):
        return np.asarray(output.argmax(axis=-1))
    inside = bool(((output >= 0) & (output <= 1)).all())
    return np.asarray(output > (0.5 if inside else 0.0))
