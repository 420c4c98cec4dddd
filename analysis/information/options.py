"""What is asked of an information run: which sequences, which blocks, which estimator."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from emergraph.errors import UsageError
from emergraph.options import Options, option

DEFAULT_DIMENSIONS = 8
"""Of each state, where nobody asked for another number and the samples allow it."""
MAX_DIMENSIONS = 2
"""Of ksg: at d = 5 and correlation .9 its estimate of 1000 samples is 3.84 bits, the truth 5.99."""
ALL_PAIRS = 0
SAMPLES_PER_DIMENSION = 25
"""Samples that one dimension of x or y needs: with fewer the estimates are noise."""


class TextUnit(StrEnum):
    """What one id of a text stands for."""

    BYTES = "bytes"
    """The byte's value: ids 0 to 255."""
    CHARACTERS = "characters"
    """The character's place among the characters of the file, the most frequent first."""
    WORDS = "words"
    """The word's place among the words of the file, the most frequent first."""


class Micro(StrEnum):
    """What the micro level of information emergence is."""

    ALONE = "alone"
    """Each token of a sequence fed by itself, at position 0 (arXiv 2405.12617 v2)."""
    FIRST = "first"
    """Position 0 of the pass over the whole sequence (the same paper's v1 and code)."""
    POSITIONS = "positions"
    """Every position of the pass over the whole sequence."""


class EstimatorName(StrEnum):
    """How mutual information is estimated."""

    GAUSSIAN = "gaussian"
    """As of a Gaussian with the same covariance, its exact bias taken off."""
    KSG = "ksg"
    """Nearest neighbours; at most two dimensions."""
    MINE = "mine"
    """A trained critic on samples that it has not seen; needs torch."""
    CODES = "codes"
    """Counting distinct states."""


class Projection(StrEnum):
    """How vectors lose dimensions."""

    PCA = "pca"
    """Onto the principal components with the largest variance."""
    RANDOM = "random"
    """Onto random orthonormal directions."""


@dataclass(frozen=True, kw_only=True)
class MineOptions:
    """How the critic is made and trained."""

    width: int = 64
    """Hidden units of each of the two layers of both towers."""
    features: int = 32
    """Numbers that each tower gives; the critic is their scalar product."""
    permutations: int = ALL_PAIRS
    """Permutations of a batch as its product of marginals; 0 takes all pairs of different samples."""
    batch: int = 256
    steps: int = 2000
    """Most training steps."""
    patience: int = 8
    """Evaluations without a rise after which training stops; see `mine.EVERY`."""
    rate: float = 1e-3
    """Step size of Adam."""

    def __post_init__(self) -> None:
        """Refuse what cannot be estimated with.

        Raises:
            UsageError: One permutation, whose bound has no upper limit, or a size below 1.
        """
        if self.permutations == 1 or self.permutations < 0:
            raise UsageError(
                "mine: one permutation makes the bound unlimited; expected 0 (all pairs) or at least 2"
            )
        if min(self.width, self.features, self.batch, self.steps, self.patience) < 1:
            raise UsageError("mine: expected sizes of at least 1")


class SequenceOptions(Options):
    """Where the sequences come from: one of --sequences, --text and --entities."""

    sequences: Path | None = option(
        default=None, help="Sequences of ids: .npz, .npy, or a text file with one per line.", metavar="FILE"
    )
    text: Path | None = option(
        default=None, help="Windows of this text instead; see --tokens.", metavar="FILE"
    )
    tokens: TextUnit = option(
        default=TextUnit.BYTES, help="What an id of --text is: bytes, characters or words (by frequency)."
    )
    length: int = option(default=8, help="Tokens of a window of --text.", least=2)
    entities: int | None = option(
        default=None,
        help="Lists of N entities instead, each followed by a separator.",
        metavar="N",
        least=2,
    )
    shots: int = option(default=4, help="Entities in a list.", least=1)
    first_id: int = option(
        default=1, help="Id of the separator; the entities have the N ids after it.", least=0
    )
    samples: int = option(default=2000, help="Maximum number of sequences to run.", least=16)

    def check(self) -> None:
        """Refuse more than one source.

        Raises:
            UsageError: There are two.
        """
        if sum(source is not None for source in (self.sequences, self.text, self.entities)) > 1:
            raise UsageError("expected one of --sequences, --text and --entities")


class BlockOptions(Options):
    """Which blocks of the model, and which micro level."""

    blocks: tuple[str, ...] = option(
        default=(),
        help="Tensors before the first block and after each; of a module, its blocks.",
        metavar="NAME,...",
        default_text="found",
    )
    ids: str | None = option(
        default=None, help="Input that takes the sequences.", metavar="NAME", default_text="found"
    )
    input: tuple[str, ...] = option(
        default=(),
        help="Value of an input that all sequences share; may be repeated.",
        metavar="NAME=VALUE",
        repeatable=True,
    )
    micro: Micro = option(
        default=Micro.ALONE, help="alone (each token by itself), first or positions (of the same pass)."
    )


class EstimatorOptions(Options):
    """What decides an estimate besides the samples."""

    estimator: EstimatorName = option(
        default=EstimatorName.GAUSSIAN,
        help="gaussian, ksg (1 or 2 dimensions), mine (needs torch) or codes.",
    )
    dimensions: int | None = option(
        default=None,
        help="Dimensions that each state is projected to.",
        default_text="8; ksg: 1",
        least=1,
    )
    projection: Projection = option(default=Projection.PCA, help="pca or random.")
    repeats: int = option(default=100, help="Resamples behind an interval.", least=0)
    seeds: int = option(default=1, help="Training runs of mine, or random projections.", least=1)
    seed: int = option(default=0, help="Seed of all random draws.", least=0)
    mine: MineOptions = field(default_factory=MineOptions)

    def check(self) -> None:
        """Refuse what the estimator cannot do.

        Raises:
            UsageError: ksg gets more than two dimensions.
        """
        if self.estimator is EstimatorName.KSG and (self.dimensions or 1) > MAX_DIMENSIONS:
            raise UsageError(
                f"ksg with {self.dimensions} dimensions: expected at most {MAX_DIMENSIONS}; its estimates "
                "are far too low beyond that: use the estimator gaussian or mine"
            )

    def kept_dimensions(self, n: int) -> int:
        """Return how many dimensions of n samples are kept: no more than the samples allow."""
        usual = 1 if self.estimator is EstimatorName.KSG else DEFAULT_DIMENSIONS
        return min(self.dimensions or usual, affordable_dimensions(n))

    def to_dict(self) -> dict[str, object]:
        """Return the options by name, but the seed."""
        used = self.mine.permutations if self.estimator is EstimatorName.MINE else None
        kept = {name: value for name, value in self.kept().items() if name != "seed"}
        return {**kept, "permutations": used}


def affordable_dimensions(n: int) -> int:
    """Return how many dimensions of each of two variables n samples allow; at least 1."""
    return max(1, n // (2 * SAMPLES_PER_DIMENSION))
