"""Whether edges in place give what stored ones give, for ten architectures of the zoo.

`.venv-zoo/bin/python benchmarks/in_place_zoo.py [NAME ...]` (made by `make zoo`) builds each module with
random weights, exports it to ONNX, writes its graph twice, and compares units, degrees, edges, path counts,
pruning levels, percolation, strengths and topology. Ends with 1 where something differs.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from zoomodels.catalogue import chosen_architectures
from zoomodels.measure import warm_up
from zoomodels.spec import Architecture

from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.percolate import percolate
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.analysis.pruning.storedwhatif import prune_stored
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.analysis.topology.topology import topology
from emergraph.exporters.export import ExportOptions
from emergraph.exporters.modeltensors import open_model
from emergraph.exporters.placements import EdgePlacement
from emergraph.exporters.pytorch.modules import capture
from emergraph.exporters.sources import export_any
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.store import open_store

NAMES = (
    *("BertModel", "GPT2Model", "ViTModel", "T5Model", "MixtralModel"),
    *("lstm_both_ways", "u_net", "test_convnext", "dit", "vae"),
)


@contextmanager
def graph_of(model: Path, folder: Path, placement: EdgePlacement) -> Iterator[GraphReader]:
    """The graph of a model with its edges at some place."""
    store = folder / f"{placement.value}.duckdb"
    with open_store(store, mode="create") as opened:
        export_any(model, opened, options=ExportOptions(edges=placement))
    with model_given(open_model(model)), open_store(store) as opened:
        yield opened.graph()


def answers(reader: GraphReader) -> dict[str, pl.DataFrame]:
    """Everything that is compared, by name."""
    graph = read_unit_graph(reader)
    active = Activity.given(np.random.default_rng(0).random(graph.n_units) < 0.5)
    count = path_count_emergence(graph, active)
    curves = percolate(graph, options=PercolationOptions(seeds=1, nulls=1)).series
    shapes = topology(graph, options=TopologyOptions())
    logs = [one.emergence.log10 for one in (count.active, count.any)]
    return {
        "units": reader.units(),
        "layers": reader.layers(),
        "edges": reader.edges().sort("block", "src", "dst"),
        "E": pl.DataFrame({"log10": logs}),
        "prune": prune_stored(reader, PruningOptions()).frame,
        "percolate": pl.DataFrame({"threshold": [one.curves[0].threshold for one in curves]}),
        "topology": shapes.measures.drop("on"),
        "strengths": shapes.units,
    }


def differing(architecture: Architecture, folder: Path) -> tuple[list[str], str]:
    """What differs between both graphs, and how many edges there are, and are in the file."""
    built = architecture.made()
    model = folder / "model.onnx"
    capture(built.module.eval(), built.args, model, kwargs=built.kwargs)
    found = []
    for placement in (EdgePlacement.STORED, EdgePlacement.IN_PLACE):
        with graph_of(model, folder, placement) as reader:
            found.append(answers(reader))
            blocks = reader.blocks_info()
    ours, theirs = found
    left = sum(block.n_edges for block in blocks if block.place is not None)
    size = f"{ours['edges'].height:,} edges, {left:,} in the file"
    return [name for name in ours if not _same(ours[name], theirs[name])], size


def _same(ours: pl.DataFrame, theirs: pl.DataFrame) -> bool:
    """Whether tables hold the same: sums in another order may differ in the last of 15 digits."""
    try:
        assert_frame_equal(ours, theirs, rel_tol=1e-12, abs_tol=1e-12)
    except AssertionError as error:
        print(error)
        return False
    return True


def main() -> int:
    """Compare the architectures that were named, or ten of those of CI."""
    names = sys.argv[1:] or NAMES
    warm_up()
    wrong = 0
    for architecture in (one for one in chosen_architectures(ci=False) if one.name in names):
        with tempfile.TemporaryDirectory() as folder:
            differs, size = differing(architecture, Path(folder))
        wrong += bool(differs)
        print(f"{architecture.name:20} {size:45} {', '.join(differs) or 'the same'}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
