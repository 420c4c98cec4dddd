"""Recording a training: what each snapshot holds, what stays untouched, what survives a kill."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import nn
from torchnets import make_net

import emergraph
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.errors import InvalidInputError, MissingExtraError, StoreError, UsageError
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.exporters.pytorch import callbacks, recorder, structure
from emergraph.exporters.pytorch.recorder import RecorderOptions, record
from emergraph.exporters.pytorch.tensors import on_device_of
from emergraph.graphstore.restore import restore_all
from emergraph.graphstore.store import open_store

PROBES = {
    "residual": torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(1)),
    "lstm": torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(2)),
    "gpt": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 1]]),
    "mixture": torch.randn(6, 4, generator=torch.Generator().manual_seed(3)),
}


def disturb(module, seed):
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=random))


def edges(reader):
    frame = reader.edges().with_columns(pl.col("kind").cast(str), pl.col("tensor").cast(str))
    return frame.drop("block").sort("src", "dst", "kind", "weight")


@pytest.mark.parametrize("name", PROBES)
def test_a_snapshot_is_the_graph_of_a_file_with_the_weights_of_then(name, tmp_path):
    net = make_net(name)
    path = tmp_path / "run.duckdb"
    with record(net.module, path, inputs=PROBES[name]) as rec:
        for step in range(3):
            rec.step(step, loss=1.0 / (step + 1))
            disturb(net.module, step)
        last = rec.step(3)
        file = onnx.load(rec._scratch.path / "model.onnx")
        feeds = dict(rec._structure.feeds)
    for tensor in file.graph.initializer:
        values = net.module.state_dict().get(tensor.name)
        if values is not None:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.numpy(), tensor.name))
    onnx.save(file, tmp_path / "now.onnx")
    with open_store(path, mode="write") as store:
        summary = export_onnx(tmp_path / "now.onnx", store, options=ExportOptions(inputs=feeds))
        fresh = store.graph(summary.graph)
        snapshot = store.graph(last)
        # a file does not tell buffers from parameters: their number differs, and nothing else
        columns = ("id", "name", "op", "kind", "depth", "first_unit", "n_units")
        assert_frame_equal(snapshot.layers().select(columns), fresh.layers().select(columns))
        assert_frame_equal(snapshot.units(), fresh.units())
        assert_frame_equal(edges(snapshot), edges(fresh))
        stored, expected = dict(restore_all(snapshot)), dict(restore_all(fresh))
        own = set(net.module.state_dict()) & set(expected)  # others are shapes and axes that torch has named
        assert own == set(net.module.state_dict()) & set(stored)
        assert all(stored[key].tobytes() == expected[key].tobytes() for key in own)
        first = dict(restore_all(store.graph(rec.graphs[0])))
        assert any(first[key].tobytes() != stored[key].tobytes() for key in own)


def make_mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


@pytest.fixture(scope="module")
def mlp_onnx(tmp_path_factory):
    """torch's export of the small network, which takes longer than everything else in these tests."""
    folder = tmp_path_factory.mktemp("mlp")
    shapes = ({0: torch.export.Dim.AUTO},)
    structure.export_structure(make_mlp(), (torch.randn(2, 4),), folder=folder, dynamic_shapes=shapes)
    return folder / "model.onnx"


@pytest.fixture
def mlp(mlp_onnx, monkeypatch):
    monkeypatch.setattr(structure, "save_onnx", lambda *args: shutil.copy(mlp_onnx, args[4]))
    return make_mlp()


def test_steps_metrics_and_parents(mlp, tmp_path):
    path = tmp_path / "run.duckdb"
    with emergraph.record(mlp, path, inputs=torch.randn(7, 4), every=2, name="net") as rec:
        made = [rec.step(epoch, loss=0.5 * epoch, accuracy=0.9) for epoch in range(5)]
    assert [graph is None for graph in made] == [False, True, False, True, False]
    graphs = emergraph.open(path).graphs
    assert graphs["name"].to_list() == ["net-0", "net-2", "net-4"]
    assert graphs["step"].to_list() == [0, 2, 4]
    assert graphs["parent"].to_list() == [None, 0, 0]
    found = emergraph.open(path).sql("SELECT graph, name, value FROM metrics ORDER BY ALL")
    assert found.rows() == [
        (g, n, v) for g, e in enumerate((0, 2, 4)) for n, v in (("accuracy", 0.9), ("loss", 0.5 * e))
    ]


def test_snapshots_can_be_kept_as_models_that_prune_writes(mlp, tmp_path):
    store, out = tmp_path / "run.duckdb", tmp_path / "pruned.onnx"
    options = RecorderOptions(models=tmp_path, name="../net")
    with emergraph.record(mlp, store, inputs=torch.randn(7, 4), options=options) as rec:
        rec.step(0)
        disturb(mlp, 0)
        rec.step(1)
    files = sorted(tmp_path.glob("*.onnx"))
    assert [file.name for file in files] == ["_net-0.onnx", "_net-1.onnx"]
    with torch.no_grad():
        expected = mlp.eval()(torch.ones(1, 4)).numpy()
    session = onnxruntime.InferenceSession(files[1])
    (found,) = session.run(None, {session.get_inputs()[0].name: np.ones((1, 4), np.float32)})
    assert np.allclose(found, expected, atol=1e-6)
    graph = emergraph.open(store).graph("../net-1")
    graph.prune(PruningOptions(levels=(0.5,)), files=ModelFiles(model=files[1]), write=out)
    assert out.is_file()


def test_a_folder_for_models_that_is_not_there_is_refused_at_once(mlp, tmp_path):
    with pytest.raises(UsageError, match="not a folder"):
        emergraph.record(
            mlp,
            tmp_path / "s.duckdb",
            inputs=torch.randn(7, 4),
            options=RecorderOptions(models=tmp_path / "no"),
        )


def test_the_trace_is_what_the_module_does_on_the_probe(mlp, tmp_path):
    path, probe = tmp_path / "run.duckdb", torch.randn(40, 4)
    with record(mlp, path, inputs=probe, options=RecorderOptions(batch_size=16, n_values=8)) as rec:
        rec.step(0)
        disturb(mlp, 0)
        graph = rec.step(1)
    with torch.no_grad():
        hidden = torch.relu(mlp[0](probe)).double().numpy()
    frame = emergraph.open(path).graph(graph).activations().filter(pl.col("unit").is_between(4, 9))
    np.testing.assert_allclose(frame["mean"], hidden.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(frame["std"], hidden.std(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(frame["share_positive"], (hidden > 0).mean(0))
    np.testing.assert_allclose(np.asarray(frame["values"].to_list()).T, hidden[:8], rtol=1e-5, atol=1e-6)


def test_training_goes_on_as_if_nobody_had_looked(mlp, tmp_path):
    mlp.train()
    mlp[2].eval()
    before = [parameter.clone() for parameter in mlp.parameters()]
    random = torch.random.get_rng_state()
    with record(mlp, tmp_path / "run.duckdb", inputs=torch.randn(4, 4)) as rec:
        torch.random.set_rng_state(random)
        rec.step(0)
        rec.step(1)
        assert torch.equal(torch.random.get_rng_state(), random)
    assert [part.training for part in mlp.modules()] == [True, True, True, False, True]
    assert all(torch.equal(a, b) for a, b in zip(before, mlp.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in mlp.parameters())


def test_the_store_is_free_between_steps(mlp, tmp_path):
    path = tmp_path / "run.duckdb"
    program = "import sys, emergraph; print(emergraph.open(sys.argv[1]).graphs.height)"
    with record(mlp, path, inputs=torch.randn(4, 4)) as rec:
        for step in range(2):
            rec.step(step)
            other = subprocess.run(
                [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
            )
            assert other.stdout == f"{step + 1}\n"


def test_a_store_that_somebody_reads_is_waited_for(mlp, tmp_path, monkeypatch):
    path = tmp_path / "run.duckdb"
    really, refused = recorder.open_store, []

    def locked(*args, **options):
        if len(refused) < 2:
            refused.append(1)
            raise StoreError("run.duckdb: locked by another process (pid 1); wait until it is done")
        return really(*args, **options)

    monkeypatch.setattr(recorder, "open_store", locked)
    with record(mlp, path, inputs=torch.randn(4, 4)) as rec:
        assert rec.step(0) == 0
        refused.clear()
        rec._options = RecorderOptions(patience=0)
        with pytest.raises(StoreError, match="locked"):
            rec.step(1)


def test_inputs_by_name_with_one_that_all_samples_share(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x, gain):
            return self.fc(x) * gain

    path = tmp_path / "run.duckdb"
    with record(Scaled(), path, inputs={"x": torch.randn(5, 3), "gain": torch.tensor([2.0, 3.0])}) as rec:
        rec.step(0)
    assert emergraph.open(path).graph().traces["n_samples"].item() == 5


def test_a_module_that_changes_is_refused(mlp, tmp_path):
    with record(mlp, tmp_path / "run.duckdb", inputs=torch.randn(4, 4)) as rec:
        rec.step(0)
        mlp[0].weight = nn.Parameter(torch.randn(6, 5))
        with pytest.raises(InvalidInputError, match=r"0\.weight.*\[6, 4\].*\[6, 5\]"):
            rec.step(1)
        mlp[0] = nn.Linear(4, 6)
        mlp[1] = nn.Tanh()
        with pytest.raises(InvalidInputError, match="computes something else"):
            rec.step(1)
    assert emergraph.open(tmp_path / "run.duckdb").graphs.height == 1


def test_misuse_is_said(mlp, tmp_path):
    path = tmp_path / "run.duckdb"
    with pytest.raises(UsageError, match="at least 1"):
        record(mlp, path, inputs=torch.randn(4, 4), every=0)
    with pytest.raises(InvalidInputError, match="no tensor with samples"):
        record(mlp, path, inputs=())
    with pytest.raises(UsageError, match="inside `with"):
        record(mlp, path, inputs=torch.randn(4, 4)).step(0)
    assert not path.exists()


def test_a_snapshot_takes_at_most_7_bytes_per_edge(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(256, 384), nn.ReLU(), nn.Linear(384, 10))  # 102 144 edges, 650 units
    path = tmp_path / "run.duckdb"
    with record(net, path, inputs=torch.randn(64, 256)) as rec:
        for step in range(10):
            rec.step(step, loss=1.0)
            disturb(net, step)
    with open_store(path) as store:
        sizes = "SELECT block_size * used_blocks, block_size * free_blocks FROM pragma_database_size()"
        used, free = store.connection.execute(sizes).fetchall()[0]
        n_edges = store.graphs()["n_edges"].sum()
    assert n_edges == 10 * 102_144
    assert used <= 7 * n_edges
    assert free < 2.5e6  # left by the last row group of each table, which every step writes anew


TRAINING = """
import json, linecache, os, random, signal, sys, time
from pathlib import Path
import shutil, torch, emergraph
from emergraph.exporters.pytorch import recorder, structure

structure.save_onnx = lambda *args: shutil.copy(sys.argv[3], args[4])
moments, path = json.loads(sys.argv[1]), Path(sys.argv[2])
torch.manual_seed(0)
nn = torch.nn
net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))

def killer(when, text):
    reached = []  # frames that are at the line
    def line(frame, event, _):
        if frame in reached or (when == "before" and text in linecache.getline(*place(frame))):
            os.kill(os.getpid(), signal.SIGKILL)
        if when == "after" and text in linecache.getline(*place(frame)):
            reached.append(frame)
        return line
    return lambda frame, event, _: line if "graphstore" in frame.f_code.co_filename else None

def place(frame):
    return frame.f_code.co_filename, frame.f_lineno

def train(rec, moment, report):
    for epoch in range(6):
        with torch.no_grad():
            net[0].weight += epoch
        if epoch == 2 and isinstance(moment, list):
            sys.settrace(killer(*moment))
        rec.step(epoch, loss=1.0 / (epoch + 1))
        os.write(report, f"{float(net[0].weight.detach().sum())}\\n".encode())
    os._exit(0) if isinstance(moment, list) else signal.pause()

options = recorder.RecorderOptions(check=False)
with emergraph.record(net, path, inputs=torch.randn(8, 4), options=options) as rec:
    for number, moment in enumerate(moments):
        reading, writing = os.pipe()
        rec._path = path.with_name(f"{number}.duckdb")
        child = os.fork()  # nothing of the store, of polars or of onnxruntime runs yet
        if child == 0:
            train(rec, moment, writing)
        os.close(writing)
        report = os.fdopen(reading)
        sums = []
        if not isinstance(moment, list):
            sums = [float(report.readline()) for _ in range(1 + number % 3)]
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        sums += [float(line) for line in report.read().split()]
        print(json.dumps({"signal": status, "sums": sums}), flush=True)
"""

RANDOM = random.Random(0)
DELAYS = [round(RANDOM.uniform(0.0, 0.15), 3) for _ in range(6)]
"""Seconds after the end of a step, which takes some 0.1 s."""
STATEMENTS = {
    "before the transaction": ["before", "BEGIN TRANSACTION"],
    "before an insert": ["before", "execute(statement, parameters)"],
    "before the commit": ["before", '"COMMIT"'],
    "after the commit": ["after", '"COMMIT"'],
    "before the file is closed": ["before", "connection.close()"],
    "after the file is closed": ["after", "connection.close()"],
}
MOMENTS = [*DELAYS, *STATEMENTS.values()]


@pytest.fixture(scope="module")
def killed(tmp_path_factory, mlp_onnx):
    """One training for each moment, forked off one export, killed with signal 9; what it had reported."""
    folder = tmp_path_factory.mktemp("killed")
    result = subprocess.run(
        [sys.executable, "-c", TRAINING, json.dumps(MOMENTS), str(folder / "x.duckdb"), str(mlp_onnx)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [report["signal"] for report in reports] == [signal.SIGKILL] * len(MOMENTS)
    return folder, [report["sums"] for report in reports]


@pytest.mark.parametrize("number", range(len(MOMENTS)), ids=[*map(str, DELAYS), *STATEMENTS])
def test_a_killed_training_keeps_every_finished_step(killed, number):
    folder, finished = killed
    path, sums = folder / f"{number}.duckdb", finished[number]
    with open_store(path) as store:
        graphs = store.graphs()
        assert len(sums) <= graphs.height <= len(sums) + 1
        if MOMENTS[number] in STATEMENTS.values():
            committed = list(STATEMENTS.values()).index(MOMENTS[number]) > 2
            assert graphs.height == 2 + committed
        assert graphs["step"].to_list() == list(range(graphs.height))
        for graph, expected in enumerate(sums):
            reader = store.graph(graph)
            weights = dict(restore_all(reader))["0.weight"]
            assert float(torch.from_numpy(weights.copy()).sum()) == pytest.approx(expected, rel=1e-5)
            assert reader.traces().height == 1
            assert reader.metrics().height == 1
    with open_store(path, mode="write") as store:
        assert store.graphs().height == graphs.height


class FakeRecorder:
    def __init__(self, every=1):
        self.every = every
        self.calls = []

    def step(self, step, **metrics):
        self.calls.append((step, metrics))
        return step if step % self.every == 0 or self.every == 1 else None

    def add_metrics(self, **metrics):
        self.calls.append(metrics)


def test_a_lightning_callback_records_what_was_logged(monkeypatch):
    library = types.ModuleType("lightning.pytorch")
    library.Callback = type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", library)
    fake = FakeRecorder()
    callback = callbacks.lightning_callback(fake)
    assert isinstance(callback, library.Callback)
    logged = {"loss": torch.tensor(0.25), "name": "x", "step": 3}
    trainer = types.SimpleNamespace(current_epoch=4, callback_metrics=logged, is_global_zero=True)
    callback.on_train_epoch_end(trainer, None)
    trainer.is_global_zero = False
    callback.on_train_epoch_end(trainer, None)
    assert fake.calls == [(4, {"loss": 0.25})]


def test_a_trainer_callback_gives_a_snapshot_the_metrics_of_its_own_epoch():
    """In the order of the Trainer of transformers 5.23: log and evaluation follow the epoch's end."""
    transformers = pytest.importorskip("transformers")
    fake = FakeRecorder()
    callback = callbacks.trainer_callback(fake)
    assert isinstance(callback, transformers.TrainerCallback)
    state = transformers.TrainerState()

    def log(step, **logs):
        state.global_step = step
        state.log_history.append({**logs, "step": step})
        callback.on_log(None, state, None, logs=logs, model=None)

    def end_epoch(step):
        state.global_step = step
        callback.on_epoch_end(None, state, None, model=None)

    log(10, loss=9.0)
    end_epoch(12)
    log(12, eval_loss=0.5)
    end_epoch(24)
    log(24, loss=0.25, epoch=2.0)
    log(24, train_runtime=1.0, train_loss=3.0)
    callback.on_train_end(None, state, None)
    log(24, eval_loss=7.0)
    assert fake.calls == [
        (12, {"loss": 9.0}),
        {"eval_loss": 0.5},
        (24, {}),
        {"loss": 0.25, "epoch": 2.0},
    ]


def test_a_trainer_callback_adds_nothing_to_an_epoch_that_was_left_out():
    transformers = pytest.importorskip("transformers")
    fake = FakeRecorder(every=2)
    callback = callbacks.trainer_callback(fake)
    state = transformers.TrainerState()
    for step in (1, 2, 3):
        state.global_step = step
        callback.on_epoch_end(None, state, None)
        state.log_history.append({"loss": float(step), "step": step})
        callback.on_log(None, state, None, logs={"loss": float(step)})
    assert fake.calls == [(1, {}), (2, {"loss": 1.0}), {"loss": 2.0}, (3, {})]


def test_metrics_can_follow_their_snapshot(tmp_path):
    net = make_net("mlp")
    with record(net.module, tmp_path / "run.duckdb", inputs=net.args) as rec:
        with pytest.raises(UsageError, match="call step before add_metrics"):
            rec.add_metrics(loss=1.0)
        rec.step(0, loss=1.0)
        rec.add_metrics(accuracy=0.5, loss=2.0)
        rec.step(1)
    with open_store(tmp_path / "run.duckdb") as store:
        found = [store.graph(graph).metrics().rows() for graph in rec.graphs]
    assert found == [[("accuracy", 0.5), ("loss", 2.0)], []]


def test_probe_inputs_follow_the_module_to_its_device():
    module = torch.nn.Linear(2, 2).to("meta")
    args, kwargs = on_device_of(module, ((torch.ones(3, 2), 5), {"mask": torch.ones(1)}))
    assert (args[0].device.type, args[1], kwargs["mask"].device.type) == ("meta", 5, "meta")
    split = torch.nn.Sequential(module, torch.nn.Linear(2, 2))
    assert on_device_of(split, torch.ones(1)).device.type == "cpu"


def test_callbacks_without_their_library_say_what_to_install(monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match="pip install lightning"):
        callbacks.lightning_callback(FakeRecorder())
    with pytest.raises(MissingExtraError, match="pip install transformers"):
        callbacks.trainer_callback(FakeRecorder())


def test_modules_of_the_package_do_not_import_torch():
    program = "import sys, emergraph.exporters.pytorch.callbacks; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
