"""What a figure is: questions in SQL, a drawing of the answers, and the words that belong to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.declaration import Query
from emergraph.errors import StoreError
from emergraph.safetext import escape_controls

if TYPE_CHECKING:
    import altair as alt

    from emergraph.analysis.figures.picture import Picture

Frames = Mapping[str, pl.DataFrame]
Draw = Callable[[Frames], "alt.TopLevelMixin | Picture"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure that can be drawn from any store that holds its runs."""

    name: str
    """As in `emergraph plot STORE NAME`."""
    title: str
    command: str
    """Command line that makes the data, with STORE and MODEL in it."""
    definition: str
    """What is drawn: every quantity with its unit."""
    queries: tuple[Query, ...]
    draw: Draw


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that a figure's data come from; see the table `runs`."""

    id: int
    command: str
    parameters: Mapping[str, object]
    seed: int | None
    tool_version: str


@dataclass(frozen=True, kw_only=True)
class FigureData:
    """The answers to a figure's questions."""

    figure: Figure
    frames: Frames
    sql: Mapping[str, str]
    """The questions as they were asked, by frame."""
    runs: tuple[Run, ...]
    """The runs that were read, without repetition."""

    def chart(self) -> "alt.TopLevelMixin | Picture":
        """Return the drawing.

        Raises:
            StoreError: The rows do not fit one another, as in a store that something else has changed.
        """
        try:
            return self.figure.draw({name: drawable(frame) for name, frame in self.frames.items()})
        except (KeyError, ValueError, IndexError, pl.exceptions.PolarsError) as error:
            raise StoreError(
                f"damaged, the rows of figure '{self.figure.name}' do not fit one another; "
                "run the analysis again, or restore the store from a copy"
            ) from error


def drawable(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame whose texts can be drawn: names from files lose what steers or hides text."""
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    return frame.with_columns(
        pl.col(name).map_elements(escape_controls, return_dtype=pl.String) for name in texts
    )
