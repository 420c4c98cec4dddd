"""Activations of folders and GGUF files: block by block, the same as of the model in one piece."""

import shutil

import numpy as np
import pytest
import torch
import transformers
from ggufmodels import tiny, write_gguf

import emergraph
from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.pytorch import wiredfolders
from emergraph.exporters.runtime.concrete import concrete_run
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.traces import record

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}


def here(function, *arguments, limits=None):
    del limits
    return function(*arguments)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """The child's work without the child."""
    monkeypatch.setattr(wiredfolders, "call_offline", here)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model as transformers writes it, and a store of its graph."""
    place = tmp_path_factory.mktemp("wired")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES)
    transformers.LlamaForCausalLM(config).save_pretrained(place / "llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiredfolders, "call_offline", here)
        emergraph.export(place / "llama", place / "a.duckdb")
    return place


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported / "llama", tmp_path / "llama")


@pytest.fixture
def graph(exported, folder):
    store = shutil.copy(exported / "a.duckdb", folder.parent / "a.duckdb")
    return emergraph.open(store).graph()


@pytest.fixture
def ids():
    return np.random.default_rng(0).integers(0, 64, (3, 11))


def test_a_folder_gives_what_its_onnx_file_gives(folder, graph, tmp_path, ids, monkeypatch):
    """In as many blocks as there are layers, and sequences of another length than the graph was made with."""
    monkeypatch.setattr(record.BlockRunner.record, "__kwdefaults__", {"most": 24_000})
    summary = graph.trace({"input_ids": ids}, model=folder)
    assert summary.n_samples == 3
    n_blocks = int(summary.batching.split()[-2])
    assert n_blocks > 3
    full = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    full.config.use_cache = False
    row = torch.from_numpy(ids[:1])
    emergraph.export(
        full,
        tmp_path / "b.duckdb",
        kwargs={"input_ids": row, "attention_mask": torch.ones_like(row)},
        keep_onnx=tmp_path / "model.onnx",
    )
    other = emergraph.open(tmp_path / "b.duckdb").graph()
    other.trace({"input_ids": ids, "attention_mask": np.ones_like(ids)}, model=tmp_path / "model.onnx")
    ours, theirs = (_activations(tmp_path / name) for name in ("a.duckdb", "b.duckdb"))
    assert ours.height == theirs.height > 100
    assert ours["unit"].to_list() == theirs["unit"].to_list()
    for column in ("mean", "max", "min"):
        np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-4, atol=1e-5)


def _activations(store):
    query = "SELECT unit, mean, min, max FROM unit_activations ORDER BY unit"
    return emergraph.open(store).sql(query)


def test_a_gguf_file_is_traced_and_counted(tmp_path, ids):
    """From the file to a count, without any other file."""
    path = write_gguf(tmp_path / "m.gguf", tiny("llama"), "llama")
    graph = emergraph.export(path, tmp_path / "a.duckdb")
    summary = graph.trace({"input_ids": ids % 48}, model=path)
    assert summary.batching == "sample by sample, in 1 blocks"
    assert graph.emergence(threshold=0.05).active.emergence.log10 > 0


def test_the_weights_of_a_folder_name_the_folder(folder, graph, tmp_path, ids):
    """Its graph says that it is from model.safetensors, so that a user may name that file."""
    assert graph.trace({"input_ids": ids}, model=folder / "model.safetensors").n_samples == 3


def test_weights_alone_cannot_be_run(folder, graph, tmp_path, ids):
    """And the line does not say that they can be exported."""
    (folder / "config.json").unlink()
    with pytest.raises(InvalidInputError, match=r"'model.safetensors' holds weights without a network; name"):
        graph.trace({"input_ids": ids}, model=folder / "model.safetensors")


def test_random_tokens(folder, graph, tmp_path):
    """Ids of the vocabulary, every position counted, in sequences of the length that is asked for."""
    summary = graph.trace(random=4, seed=1, model=folder, input_shapes={"input_ids": (1, 9)})
    assert summary.n_samples == 4
    traces = emergraph.open(tmp_path / "a.duckdb").sql("SELECT settings FROM traces").row(0)[0]
    assert '"input_ids": [1, 9]' in traces
    spread = emergraph.open(tmp_path / "a.duckdb").sql("SELECT max(max - min) FROM unit_activations")
    assert spread.item() > 0


def test_another_folder_is_refused_before_it_is_wired(folder, graph, tmp_path, ids, monkeypatch):
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.1'))
    monkeypatch.setattr(wiredfolders, "call_offline", None)
    with pytest.raises(InvalidInputError, match=r"'llama' is not the model of graph 'llama'"):
        graph.trace({"input_ids": ids}, model=folder)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"input_id": np.zeros((2, 5), int)},
            r"unknown input 'input_id'; available: input_ids, attention_mask",
        ),
        ({"input_ids": np.zeros((2, 5), int), "attention_mask": np.ones((3, 5), int)}, "samples"),
    ],
)
def test_inputs_that_do_not_fit(folder, graph, tmp_path, inputs, message):
    with pytest.raises(InvalidInputError, match=message):
        graph.trace(inputs, model=folder)


def test_what_is_kept_of_all_samples_has_a_limit(folder, graph, tmp_path, ids, monkeypatch):
    monkeypatch.setattr(record.BlockRunner.record, "__kwdefaults__", {"most": 24_000})
    monkeypatch.setattr(record, "KEPT_SHARE", 1 << 30)
    with pytest.raises(LimitError, match="what has to be kept of 3 samples between two blocks"):
        graph.trace({"input_ids": ids}, model=folder, run_limits=RunLimits())


@pytest.fixture
def chain(tmp_path):
    """A model of six dense layers of 400 bytes."""
    layers = [torch.nn.Linear(10, 10, bias=False) for _ in range(6)]
    emergraph.export(
        torch.nn.Sequential(*layers),
        tmp_path / "c.duckdb",
        args=(torch.zeros(1, 10),),
        keep_onnx=tmp_path / "c.onnx",
    )
    return concrete_run(as_source(read_onnx(tmp_path / "c.onnx")))


@pytest.mark.parametrize(("most", "blocks_"), [(399, 6), (400, 6), (800, 3), (1200, 2), (2399, 2), (2400, 1)])
def test_blocks_hold_at_most_so_many_bytes(chain, most, blocks_):
    """A layer alone may be larger."""
    starts = record.block_starts(chain, most)
    assert len(starts) == blocks_
    assert starts == sorted(set(starts))
