"""A graph to look at: as a page, or beside another graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emergraph.api.handle import GraphHandle
from emergraph.atomic import write_atomically

if TYPE_CHECKING:
    from emergraph.analysis.comparison.difference import Difference
    from emergraph.analysis.report.document import Report


@dataclass(frozen=True)
class GraphViews(GraphHandle):
    """A graph to look at: as a page, or beside another graph."""

    def report(self, out: str | Path | None = None) -> "Report":
        """Return what the store knows about the graph: the newest run of each analysis; nothing is run.

        Args:
            out: HTML file to write the page to; it loads nothing and runs no script.

        Raises:
            UsageError: The file cannot be written.
            LimitError: The disk is full.

        Example:
            >>> graph.report("report.html").section("emergence").facts  # doctest: +SKIP
        """
        from emergraph.analysis.report.collect import collect_report

        with self._reader() as reader:
            found = collect_report(reader)
        if out is not None:
            write_atomically(Path(out), found.to_html().encode())
        return found

    def diff(self, other: GraphHandle, *, match_units: bool = True, seed: int = 0) -> "Difference":
        """Return what differs between this graph and another one, of this or another store.

        Args:
            other: The graph that this one, A, is compared with, B.
            match_units: Seek which hidden unit of A stands for which of B (arXiv 2209.04836).
            seed: Seed of that search.

        Example:
            >>> first.diff(last).verdict  # doctest: +SKIP
        """
        from emergraph.analysis.comparison.difference import compare

        with self._reader() as ours, other._reader() as theirs:  # noqa: SLF001 - of the same class
            return compare(ours, theirs, match=match_units, seed=seed)
