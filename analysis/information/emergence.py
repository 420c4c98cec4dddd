"""Information emergence: how much more a block tells about a sequence than about its tokens.

`IE(l) = I(h_l^macro ; h_{l+1}^macro) - mean_t I(h_l^micro_t ; h_{l+1}^micro_t)` in bits
(arXiv 2405.12617, eq. 2), with h_l and h_{l+1} the states before and after block l: of the last token of a
sequence (macro), and of the tokens by themselves (micro, see `Micro`).

A block computes its output from its input, so both informations are at most log2 of the number of distinct
inputs, and a block that never gives two inputs the same output reaches that. An estimate at the ceiling says
nothing about the model; every estimate is shown with its ceiling.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.information.codes import distinct_states
from emergraph.analysis.information.estimate import Floats, MutualInformation, spread
from emergraph.analysis.information.measure import Inputs, measure
from emergraph.analysis.information.options import EstimatorOptions, Micro
from emergraph.analysis.information.states import BlockStates
from emergraph.choices import unknown
from emergraph.errors import UsageError

Array = NDArray[np.generic]
TOTAL = "all blocks"


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockInformation:
    """Information that passes one block, or all of them."""

    block: str
    """Its name; `TOTAL` for the chain from its first state to its last."""
    macro: MutualInformation
    micro: tuple[MutualInformation, ...]
    """One per token position."""

    @property
    def micro_value(self) -> float:
        """Mean over positions, bits."""
        return float(np.mean([estimate.value for estimate in self.micro]))

    @property
    def micro_ceiling(self) -> float:
        """Mean of the ceilings, bits."""
        return float(np.mean([estimate.ceiling for estimate in self.micro]))

    @property
    def emergence(self) -> float:
        """Macro less micro, bits."""
        return self.macro.value - self.micro_value

    @property
    def ideal(self) -> float:
        """What it would be with both at their ceilings: a number of the data, not of the model."""
        return self.macro.ceiling - self.micro_ceiling

    @property
    def deviations(self) -> Floats:
        """(repeats,) deviations of the difference; NaN where one of the estimates is at its ceiling."""
        micro = np.mean([_deviations(estimate) for estimate in self.micro], axis=0)
        return np.asarray(_deviations(self.macro) - micro)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the emergence, 95 %, over random halves of the sequences."""
        return spread(self.emergence, self.deviations, within=(-self.micro_ceiling, self.macro.ceiling))

    @property
    def flag(self) -> str:
        """Which estimates are at their ceilings: "macro", "micro 3/8", both, or nothing."""
        capped = sum(estimate.at_ceiling and estimate.ceiling > 0 for estimate in self.micro)
        words = ["macro"] if self.macro.at_ceiling else []
        words += [f"micro {capped}/{len(self.micro)}"] if capped else []
        return ", ".join(words)

    def row(self) -> dict[str, object]:
        """Return the numbers of the result table."""
        low, high = self.interval
        macro_low, macro_high = self.macro.interval
        return {
            "block": self.block,
            "emergence": self.emergence,
            "low": low,
            "high": high,
            "ideal": self.ideal,
            "macro": self.macro.value,
            "macro_low": macro_low,
            "macro_high": macro_high,
            "macro_ceiling": self.macro.ceiling,
            "micro": self.micro_value,
            "micro_ceiling": self.micro_ceiling,
            "at_ceiling": self.flag,
        }


def _deviations(estimate: MutualInformation) -> Floats:
    """Of an estimate; a ceiling of 0 bits (one input) is exact, any other has none."""
    if not estimate.at_ceiling:
        return estimate.deviations
    return np.full_like(estimate.deviations, 0.0 if estimate.ceiling == 0 else np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class InformationResult:
    """Information emergence of a chain of blocks."""

    blocks: tuple[BlockInformation, ...]
    total: BlockInformation
    """From the state before the first block to the state after the last."""
    micro: Micro
    options: EstimatorOptions
    n: int
    """Sequences."""
    n_distinct: int
    """Distinct ones among them."""
    population: int | None
    """Distinct sequences that there are; None if not known."""
    width: int
    description: str
    notes: tuple[str, ...]

    @property
    def ceiling(self) -> float:
        """log2 of the distinct sequences, in bits: no mutual information of a block is larger."""
        return float(np.log2(self.population or self.n_distinct))

    @property
    def mean(self) -> float:
        """Mean emergence of the blocks, bits."""
        return float(np.mean([block.emergence for block in self.blocks]))

    def frame(self) -> pl.DataFrame:
        """Return one row per block, and the last for the whole chain; NULL where there is no interval."""
        rows = [
            {"number": number, **block.row()}
            for number, block in enumerate([*self.blocks, self.total], start=1)
        ]
        return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(pl.Float64).fill_nan(None))

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values."""
        return {
            "sequences": self.description,
            "n": self.n,
            "n_distinct": self.n_distinct,
            "population": self.population,
            "ceiling": self.ceiling,
            "micro_level": str(self.micro),
            "width": self.width,
            **self.options.to_dict(),
            "seed": self.options.seed,
            "mean": self.mean,
            "blocks": [
                {
                    **block.row(),
                    "macro_estimate": block.macro.to_dict(),
                    "micro_estimates": [estimate.to_dict() for estimate in block.micro],
                }
                for block in [*self.blocks, self.total]
            ],
            "notes": list(self.notes),
        }


def information_emergence(
    states: BlockStates,
    *,
    micro: Micro = Micro.ALONE,
    options: EstimatorOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> InformationResult:
    """Estimate the information emergence of every block, and of all blocks together.

    Args:
        states: Hidden states, with those of the micro level.
        micro: The micro level.
        options: The estimator.
        progress: Called with (blocks done, blocks in all).

    Raises:
        UsageError: The states of the micro level were not kept, or the samples do not suffice.
    """
    options = options or EstimatorOptions()
    if micro not in states.micro:
        raise UsageError(unknown("micro level", micro, states.micro))
    found: list[BlockInformation] = []
    steps = [(name, i, i + 1) for i, name in enumerate(states.blocks)] + [(TOTAL, 0, len(states.blocks))]
    for done, (name, before, after) in enumerate(steps):
        macro = measure(
            states.last[before],
            states.last[after],
            inputs=_macro_inputs(states, before),
            options=options,
        )
        pairs = _micro_pairs(states, micro, before, after)
        estimates = tuple(measure(x, y, inputs=inputs, options=options) for x, y, inputs in pairs)
        found.append(BlockInformation(block=name, macro=macro, micro=estimates))
        if progress is not None:
            progress(done + 1, len(steps))
    return InformationResult(
        blocks=tuple(found[:-1]),
        total=found[-1],
        micro=micro,
        options=options,
        n=states.n,
        n_distinct=len(np.unique(states.inputs, axis=0)),
        population=states.population,
        width=states.width,
        description=states.description,
        notes=(*states.notes, *_notes(found, states, options)),
    )


def _macro_inputs(states: BlockStates, before: int) -> Inputs:
    """What is known of the states that go into a block: as many as distinct sequences, or fewer."""
    sequences = distinct_states(states.inputs)
    codes = distinct_states(states.last[before])
    if codes.max() < sequences.max():
        return Inputs.of_codes(codes)
    return Inputs.of_codes(sequences, population=states.population)


def _micro_pairs(
    states: BlockStates, micro: Micro, before: int, after: int
) -> Sequence[tuple[Array, Array, Inputs]]:
    """States of a block's input and output per token position, and what they were computed from."""
    x, y = states.micro[micro][before], states.micro[micro][after]
    if micro == Micro.ALONE:
        tokens = states.inputs.T
        return [(x[token], y[token], Inputs.of_codes(token)) for token in tokens]
    pairs = []
    for position in range(x.shape[1]):
        # the causal past decides a state; in a bidirectional model all of the sequence may
        codes = distinct_states(x[:, position])
        pairs.append((x[:, position], y[:, position], Inputs.of_codes(codes)))
    return pairs


def _notes(found: Sequence[BlockInformation], states: BlockStates, options: EstimatorOptions) -> list[str]:
    notes = []
    if capped := [block.block for block in found if block.macro.at_ceiling and block.macro.ceiling > 0]:
        notes.append(
            f"macro information is at its ceiling in {len(capped)} of {len(found)} rows: there the number is "
            "that of the data, not of the model"
        )
    if constant := [block.block for block in found if block.macro.diagnostics.get("constant")]:
        notes.append(
            f"the last token's state is the same for all sequences before {constant[0]}: no information"
        )
    share = found[0].macro.diagnostics.get("share_y")
    kept = options.kept_dimensions(states.n)
    if isinstance(share, float) and kept < states.width:
        notes.append(
            f"states of width {states.width} were projected to {kept} dimensions ({options.projection})"
        )
    return notes
