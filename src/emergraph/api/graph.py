"""A graph of a store, with everything that can be asked of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emergraph.api.contents import GraphContents
from emergraph.api.emergence import GraphEmergence
from emergraph.api.networks import GraphNetwork
from emergraph.api.views import GraphViews
from emergraph.api.whatifs import GraphWhatIfs

if TYPE_CHECKING:
    from emergraph.exporters.export import ExportSummary


@dataclass(frozen=True)
class Graph(GraphContents, GraphEmergence, GraphWhatIfs, GraphNetwork, GraphViews):
    """One graph of a store on disk. Every call opens the file and closes it again."""

    export_summary: "ExportSummary | None" = None
    """What the export understood; only on the graph that `export` returns."""

    def _repr_html_(self) -> str:
        from emergraph.analysis.notebook import html_of

        about = {name.removeprefix("n_").replace("_", " "): value for name, value in self.info.items()}
        columns = ("id", "name", "op", "kind", "n_units", "n_params")
        return html_of(f"Graph {self.name}", {**about, "layers": self.layers.select(columns).to_dicts()})
