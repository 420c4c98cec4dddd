"""Stores with every analysis in them, for tests of figures, reports and comparisons."""

from pathlib import Path

import numpy as np
import onnx
from clifiles import DEMO, chain_of_layers

from emergraph import api
from emergraph.analysis.emergence.fullreport import ReportOptions
from emergraph.analysis.landscape.modelsurvey import ModelOptions, survey_model
from emergraph.analysis.landscape.options import SurveyOptions
from emergraph.analysis.landscape.saving import save_model_survey
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.exporters.traces.samples import RandomInputs

HOSTILE = (
    "<script>document.title='pwned'</script>",
    "\x1b[31mred\x1b[0m\x07",
    "'; DROP TABLE graphs; --",
    "safe\u202egnp.exe\u2066",
    '"><img src=x onerror=alert(1)>{{7*7}}{%raw%}',
    "]]>--!></style></title>&lt;b&gt;",
)
"""Names that try to be markup, terminal commands, SQL, reversed text, templates."""

SURVEY = SurveyOptions(
    directions=3, slice_points=7, planes=1, plane_points=7, walks=3, walk_length=12, distances=2, pairs=2,
    layer_directions=2,
)  # fmt: skip


def analysed(path: Path, model: Path, *, name: str, survey: bool = True) -> api.Graph:
    """A graph of a model with a small run of every analysis that reports show."""
    graph = api.export(model, path, name=name)
    graph.trace(RandomInputs(12, 3), model=model)
    graph.emergence(ReportOptions(thresholds=12, draws=10, null_draws=10, seed=1), full=True)
    graph.prune(PruningOptions(levels=(0.0, 0.5, 0.99)))
    graph.percolate(PercolationOptions(seeds=2, nulls=2, points=20))
    graph.topology()
    if survey:
        save_model_survey(path, survey_model(model, SURVEY, ModelOptions(samples=4, budget=None)))
    return graph


def hostile_model(path: Path) -> Path:
    """An ONNX file with the names above."""
    weight = np.asarray([[1.0, -0.5], [0.25, 2.0]], dtype=np.float32)
    onnx.save(chain_of_layers(*HOSTILE, weight=weight), path)
    return path


def dense_demo() -> Path:
    """The demo's dense network."""
    return DEMO / "digits_dense.onnx"
