"""The options of `emergraph information`: what to run, which blocks, which estimator."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.errors import UsageError
from emergraph.exporters.runtime.inputwords import parse_values
from emergraph.options import member

if TYPE_CHECKING:
    from emergraph.analysis.information.measure import EstimatorOptions
    from emergraph.analysis.information.onnxstates import StateOptions
    from emergraph.analysis.information.sequences import Sequences


@dataclass(frozen=True, kw_only=True)
class SequenceSource:
    """Where the sequences come from: one of --sequences, --text and --entities."""

    sequences: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sequences of ids: .npz, .npy, or a text with one a line."),
    ] = None
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Windows of this text instead; see --tokens.")
    ] = None
    tokens: Annotated[
        str, typer.Option(help="What an id of --text is: bytes, characters or words (by frequency).")
    ] = "bytes"
    length: Annotated[int, typer.Option(min=2, help="Tokens of a window of --text.")] = 8
    entities: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Lists of N entities instead, each followed by a separator."),
    ] = None
    shots: Annotated[int, typer.Option(min=1, help="Entities in a list.")] = 4
    first_id: Annotated[
        int, typer.Option(min=0, help="Id of the separator; the entities have the N ids after it.")
    ] = 1
    samples: Annotated[int, typer.Option(min=16, help="Most sequences to run.")] = 2000

    def chosen(self, seed: int) -> "Sequences | None":
        """The sequences; None where no source was named.

        Raises:
            UsageError: More than one source was named, or it does not make sense.
            InvalidInputError: A file is missing or has another form.
        """
        from emergraph.analysis.information.sequences import (
            TextUnit,
            entity_sequences,
            read_sequences,
            text_sequences,
        )

        if sum(source is not None for source in (self.sequences, self.text, self.entities)) > 1:
            raise UsageError("expected one of --sequences, --text and --entities")
        if self.sequences is not None:
            return read_sequences(self.sequences, n=self.samples, seed=seed)
        if self.text is not None:
            unit = member(TextUnit, self.tokens, "tokens")
            return text_sequences(self.text, length=self.length, unit=unit, n=self.samples, seed=seed)
        if self.entities is None:
            return None
        ids = range(self.first_id + 1, self.first_id + 1 + self.entities)
        from math import perm

        there = perm(self.entities, min(self.shots, self.entities))
        return entity_sequences(ids, self.first_id, shots=self.shots, n=min(self.samples, there), seed=seed)


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """Which blocks, which micro level, which estimator."""

    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Tensors before the first block and after each; of a module, its blocks.  [default: found]",
        ),
    ] = None
    ids: Annotated[
        str | None, typer.Option(metavar="NAME", help="Input that takes the sequences.  [default: found]")
    ] = None
    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Value of an input that all sequences share; may be repeated."
        ),
    ] = None
    micro: Annotated[
        str, typer.Option(help="alone (each token by itself), first or positions (of the same pass).")
    ] = "alone"
    estimator: Annotated[
        str, typer.Option(help="gaussian, ksg (1 or 2 dimensions), mine (needs torch) or codes.")
    ] = "gaussian"
    dimensions: Annotated[
        int | None,
        typer.Option(min=1, help="Dimensions that each state is projected to.  [default: 8; ksg: 1]"),
    ] = None
    projection: Annotated[str, typer.Option(help="pca or random.")] = "pca"
    repeats: Annotated[int, typer.Option(min=0, help="Resamples behind an interval.")] = 100
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of mine, or random projections.")] = 1
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0

    def run_options(self, limits: Limits, links: Links) -> "StateOptions":
        """How the model is run."""
        from emergraph.analysis.information.onnxstates import StateOptions
        from emergraph.analysis.information.states import Micro
        from emergraph.exporters.runtime.limits import RunLimits

        return StateOptions(
            tensors=None if self.blocks is None else self.blocks.split(","),
            input_name=self.ids,
            inputs=parse_values(self.input or ()),
            micro=member(Micro, self.micro, "micro"),
            root=links.root,
            limits=RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes),
        )

    def estimator_options(self) -> "EstimatorOptions":
        """How information is estimated."""
        from emergraph.analysis.information.measure import EstimatorName, EstimatorOptions
        from emergraph.analysis.information.projection import Projection

        return EstimatorOptions(
            estimator=member(EstimatorName, self.estimator, "estimator"),
            dimensions=self.dimensions,
            projection=member(Projection, self.projection, "projection"),
            repeats=self.repeats,
            seeds=self.seeds,
            seed=self.seed,
        )
