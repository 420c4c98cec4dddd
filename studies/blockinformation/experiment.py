"""Information emergence of one model by many estimators."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
from torch import nn

from emergraph.analysis.information.emergence import information_emergence
from emergraph.analysis.information.model import module_states
from emergraph.analysis.information.options import EstimatorName, EstimatorOptions, MineOptions
from emergraph.analysis.information.sequences import Sequences
from emergraph.analysis.information.states import BlockStates

SMALL_CRITIC = MineOptions(width=32, batch=128, steps=300, patience=3)
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is estimated on one model and one set of sequences."""

    dimensions: Sequence[int] = (1, 2, 4, 8, 16)
    """Of the Gaussian estimator."""
    mine: bool = False
    """MINE alone, in 8 dimensions, instead of all the others."""
    repeats: int = 40
    ksg_repeats: int = 6


def estimate_all(
    module: nn.Module, sequences: Sequences, plan: Plan, *, model: str, data: str, say: Say
) -> pl.DataFrame:
    """One row per estimator and block."""
    blocks = None if not hasattr(module, "transformer") else [f"transformer.h.{i}" for i in range(8)]
    states = module_states(module, sequences, blocks=blocks)
    say(f"{model}, {data}: states")
    if plan.mine:
        mine = EstimatorOptions(
            estimator=EstimatorName.MINE, dimensions=8, repeats=plan.repeats, mine=SMALL_CRITIC
        )
        found = _rows(states, mine, model, data)
        say(f"{model}, {data}: mine")
        return found
    frames = [
        _rows(states, EstimatorOptions(dimensions=d, repeats=plan.repeats), model, data)
        for d in plan.dimensions
    ]
    codes = EstimatorOptions(estimator=EstimatorName.CODES, repeats=2)
    ksg = EstimatorOptions(estimator=EstimatorName.KSG, dimensions=1, repeats=plan.ksg_repeats)
    frames += [_rows(states, options, model, data) for options in (codes, ksg)]
    say(f"{model}, {data}: gaussian, codes, ksg")
    return pl.concat(frames)


def _rows(states: BlockStates, options: EstimatorOptions, model: str, data: str) -> pl.DataFrame:
    result = information_emergence(states, options=options)
    return result.frame().with_columns(
        model=pl.lit(model),
        data=pl.lit(data),
        estimator=pl.lit(str(options.estimator)),
        dimensions=pl.lit(options.dimensions or 0),
        n=pl.lit(result.n),
    )
