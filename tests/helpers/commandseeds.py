"""Sound files of every format that commands take, and the commands that take them; fuzzing spoils them."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import ggufbytes as g
import numpy as np
import polars as pl
from clifiles import DEMO
from onnxseeds import own_seeds

from emergraph.cli.main import main

LANDSCAPE = "--directions 2 --planes 1 --walks 2 --budget 1s --backend serial"
_DENSE = "{d}/dense.onnx"
_RUN_DENSE = f"--graph digits_dense --model {_DENSE}"
_WEIGHTS = (
    "check {f}",
    "export {f} {o}/new.duckdb --wire none",
    "export {f} {o}/new.duckdb --wire sequential",
    "export {f} {o}/new.duckdb --edges in-place",
    "export {f} {o}/new.duckdb --dry-run",
    "diff {f} {d}/weights.safetensors",
    "diff {d}/weights.safetensors {f} --view units",
    "audit {f} --budget 5s",
)

COMMANDS: dict[str, tuple[str, ...]] = {
    "onnx": (
        "check {f}",
        "export {f} {o}/new.duckdb",
        "export {f} {o}/new.duckdb --dry-run --branch all",
        "export {f} {o}/new.duckdb --edges in-place",
        "audit {f} --budget 5s",
        "audit {f} --budget 5s --fail-on error --write {o}/smaller.onnx",
        f"landscape {{f}} {LANDSCAPE}",
        f"landscape {{f}} --masks 3 {LANDSCAPE} --store {{o}}/new.duckdb",
        "report {f} --terminal --budget 20s --store {o}/new.duckdb",
        "report {f} --budget 20s --out {o}/r.html --store {o}/new.duckdb",
        "diff {f} {d}/dense.onnx",
        "lineage {f} {d}/dense.onnx",
        "explore {f} --budget 10s --out {o}/e.html --store {o}/new.duckdb",
        "diff {d}/dense.onnx {f} --view units",
        "trace {s} --model {f} --random 5 --graph digits_dense",
        "influence {s} --graph digits_dense --model {f} --inputs {d}/pixels.npz --samples 2 --only-layers",
        "circuit {s} --graph digits_dense --model {f} --inputs {d}/pixels.npz --samples 2 --draws 1",
        "paths {d}/in-place.duckdb --model {f} --no-save",
        "sql {d}/in-place.duckdb 'SELECT count(*), sum(weight) FROM edges' --model {f}",
        f"landscape {_DENSE} --to {{f}} {LANDSCAPE}",
    ),
    "onnx-ids": (
        "information {f} --text {d}/text.txt --samples 16 --repeats 0",
        "information {f} --sequences {d}/ids.npy --samples 16 --repeats 0",
    ),
    "safetensors": _WEIGHTS,
    "gguf": (
        # of an architecture that nobody knows: what needs a wiring refuses it
        *(line for line in _WEIGHTS if line.startswith(("check", "audit")) or "--wire" in line),
        "export {f} {o}/new.duckdb --wire none --dry-run",
        "export {f} {o}/new.duckdb --wire none --edges in-place",
    ),
    "gguf-llama": (
        "export {f} {o}/new.duckdb",
        "export {f} {o}/new.duckdb --edges in-place",
        "export {f} {o}/new.duckdb --dry-run",
        "check {f}",
        "diff {f} {d}/weights.safetensors",
    ),
    "torch-zip": _WEIGHTS,
    "torch-pickle": _WEIGHTS,
    "npz-weights": _WEIGHTS,
    "folder": (
        "export {f} {o}/new.duckdb",
        "export {f} {o}/new.duckdb --dry-run",
        "check {f}",
        "audit {f} --budget 5s",
        "diff {f} {d}/weights.safetensors",
        "report {f} --terminal --budget 60s --store {o}/new.duckdb",
    ),
    "store": (
        "ls {f}",
        "info {f}",
        "info {f} --graph digits_conv",
        "emergence {f}",
        "emergence {f} --thresholds 0.01,0.1",
        "emergence {f} --full --nulls rewired --draws 10",
        "emergence {f} --rule per_sample --draws 10",
        "prune {f} --level 0.3,0.6",
        "prune {f} --sensitivity",
        "percolate {f} --seeds 2",
        "topology {f}",
        "convert {f} --to graphml --target {o}/g.graphml",
        "convert {f} --to parquet --target {o}/tables",
        "convert {f} --to edgelist --target {o}/g.csv",
        "convert {f} --to lake --out {o}/lake",
        "convert {f} --to model-explorer --target {o}/explorer",
        "convert {f} --to pyg-weights --target {o}/g.pt",
        "explore {f} --out {o}/e.html",
        "lineage {f}",
        "lineage {f} {d}/store.duckdb --out {o}/family.html --format html",
        "report {f} --terminal",
        "report {f} --out {o}/r.html",
        "diff {f}:digits_conv {f}:digits_dense",
        "diff {s}:digits_conv {f}:digits_conv --view measures",
        "plot {f}",
        "plot {f} layers --out {o}/map.html",
        "sql {f} 'FROM edges'",
        "sql {f} --recipe hubs",
        "sql {f} --recipe coverage",
        "rm {f} --graph digits_conv",
        "merge {f} {s}",
        "merge {s} {f}",
        "compact {f}",
        "trace {f} {d}/digits.npz --model {d}/conv.onnx --graph digits_conv",
        "trace {f} --import {d}/recorded.npz --graph digits_dense",
        "export {d}/dense.onnx {f} --force",
        "paths {f} --graph digits_conv",
        f"influence {{f}} {_RUN_DENSE} --inputs {{d}}/pixels.npz --samples 2 --only-layers",
        f"circuit {{f}} {_RUN_DENSE} --inputs {{d}}/pixels.npz --samples 2 --draws 1",
        f"contributions {{f}} {_RUN_DENSE} --inputs {{d}}/pixels.npz --samples 2 --top 3",
        f"landscape {_DENSE} {LANDSCAPE} --store {{f}}",
    ),
    "in-place": (
        *(
            f"{command} --model {_DENSE}"
            for command in (
                "percolate {f} --seeds 2",
                "paths {f} --verify",
                "topology {f}",
                "emergence {f}",
                "convert {f} --to edgelist --target {o}/g.csv",
                "sql {f} 'SELECT count(*), sum(weight) FROM edges'",
                "sql {f} 'FROM edges LIMIT 3' --verify",
            )
        ),
        "info {f}",
        "report {f} --terminal",
    ),
    "lake": (
        "sql {f} 'FROM layers'",
        "sql {f} 'SELECT graph, count(*), sum(weight) FROM connections GROUP BY ALL'",
        "sql {f} --recipe hubs",
        "lineage {f}",
        "convert {s} --to lake --out {f}",
        "survey {d}/few.txt --out {f} --backend serial",
    ),
    "snapshots": (
        "trajectory {f} --metric loss --lower-is-better --max-lag 1 --permutations 20",
        "trajectory {f} --metric loss --rule weight_change --max-lag 1 --permutations 20",
    ),
    "pairs": ("concepts {f} --nulls 2", "concepts {f} --nulls 1 --time time --class class"),
    "runs": ("transition {f} --draws 5",),
    "curves": (
        "skills fit {f} --alpha 0.6",
        "skills fit {f} --alpha 0.6 --store {o}/new.duckdb",
    ),
    "inputs": (
        "trace {s} {f} --model {d}/dense.onnx --graph digits_dense",
        f"landscape {_DENSE} --inputs {{f}} {LANDSCAPE}",
        "export {d}/dense.onnx {o}/new.duckdb --inputs {f}",
        "prune {s} --model {d}/dense.onnx --inputs {f} --labels {d}/labels.npz --level 0.5",
        "emergence {s} --positions --model {d}/conv.onnx --graph digits_conv --inputs {f}",
        "report {d}/dense.onnx --inputs {f} --terminal --budget 20s --store {o}/new.duckdb",
        f"influence {{s}} {_RUN_DENSE} --inputs {{f}} --units 'position < 3'",
        f"circuit {{s}} {_RUN_DENSE} --inputs {{f}} --units 'position < 3' --draws 1",
        f"contributions {{s}} {_RUN_DENSE} --inputs {{f}} --top 3",
    ),
    "labels": ("prune {s} --model {d}/dense.onnx --inputs {d}/pixels.npz --labels {f} --level 0.5",),
    "labelled": (
        f"landscape {_DENSE} --inputs {{f}} --target labels {LANDSCAPE}",
        f"landscape {_DENSE} --inputs {{f}} --target labels --ignore-label 3 {LANDSCAPE}",
    ),
    "recorded": ("trace {s} --import {f} --graph digits_dense",),
    "states": ("information {f} --micro first --repeats 2", "information {f} --repeats 2 --estimator codes"),
    "sequences": ("information {d}/ids.onnx --sequences {f} --samples 16 --repeats 0",),
    "resume": (f"landscape {_DENSE} {LANDSCAPE} --resume {{f}}",),
}
"""Command lines by format. {f}: the file of that format; {d}: the folder of sound files; {s}: a sound store;
{o}: a folder for outputs."""

WEIGHTS = {
    "torch-pickle": 0.6,
    "torch-zip": 0.6,
    "npz-weights": 0.6,
    "onnx-ids": 0.5,
    "store": 3.0,
    "onnx": 2.0,
    "folder": 0.15,
    "gguf-llama": 0.4,
    "labelled": 0.3,
    "resume": 0.3,
}
"""How often a format is drawn; 1 where it is not named."""
SHARES = {"report": 0.1, "survey": 0.1, "explore": 0.3, "landscape": 0.15, "trajectory": 0.4}
"""How often a command of a format is drawn, by its name; 1 where it is not named: others take less time."""


def make_seeds(folder: Path) -> dict[str, list[Path]]:
    """Write the sound files into a folder; return those of each format."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in (("dense.onnx", "digits_dense.onnx"), ("conv.onnx", "digits_conv.onnx")):
        shutil.copy(DEMO / source, folder / name)
    shutil.copy(DEMO / "digits.npz", folder)
    (folder / "text.txt").write_text("abcab " * 200)
    onnx = [folder / "dense.onnx", folder / "conv.onnx"]
    for seed in own_seeds():
        if not seed.beside:
            onnx.append(folder / f"own-{seed.name}.onnx")
            onnx[-1].write_bytes(seed.content)
    made = {
        "onnx": onnx,
        "onnx-ids": [folder / "ids.onnx"],
        **_arrays(folder),
        **_weights(folder),
        **_tables(folder),
    }
    _ids_model(folder / "ids.onnx")
    made["folder"] = [_config_folder(folder / "vit")]
    made["store"] = [_store(folder)]
    made["in-place"] = [folder / "in-place.duckdb"]
    model, store = str(folder / "dense.onnx"), str(made["in-place"][0])
    for line in (
        ["export", model, store, "--edges", "in-place"],
        ["trace", store, str(folder / "pixels.npz"), "--model", model],
    ):
        assert main([*line, "--quiet", "--out", "/dev/null"]) == 0
    made["lake"] = [folder / "lake"]
    line = ["convert", str(made["store"][0]), "--to", "lake", "--out", str(made["lake"][0])]
    assert main([*line, "--quiet"]) == 0
    (folder / "few.txt").write_text("dense.onnx\n")
    made["snapshots"] = [_snapshots(folder)]
    resume = folder / "part.npz"
    landscape = ["landscape", str(folder / "dense.onnx"), *LANDSCAPE.split(), "--resume", str(resume)]
    with mock.patch.object(Path, "unlink", return_value=None):  # a sweep that is done removes it
        assert main([*landscape, "--quiet", "--out", "/dev/null"]) == 0
    assert resume.exists()
    made["resume"] = [resume]
    return made


def _arrays(folder: Path) -> dict[str, list[Path]]:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    pixels = np.load(DEMO / "digits.npz")["pixels"][:20]
    labels = np.load(DEMO / "labels.npz")["labels"][:20]
    np.savez(folder / "inputs.npz", pixels=pixels, labels=labels)
    np.savez(folder / "pixels.npz", pixels=pixels)
    np.savez(folder / "labels.npz", labels=labels)
    np.savez(folder / "recorded.npz", hidden1=rng.normal(size=(9, 48)), hidden2=rng.normal(size=(9, 32)))
    states = {f"state_{k}": rng.normal(size=(40, 5, 4)).astype(np.float32) for k in range(3)}
    alone = {f"alone_{k}": rng.normal(size=(6, 4)).astype(np.float32) for k in range(3)}
    sequences = rng.integers(0, 6, (40, 5))
    np.savez(folder / "states.npz", sequences=sequences, tokens=np.arange(6), **states, **alone)
    np.save(folder / "ids.npy", sequences)
    (folder / "ids.txt").write_text("\n".join(" ".join(map(str, row)) for row in sequences.tolist()))
    np.savez(folder / "ids.npz", sequences=sequences)
    recorded = pl.DataFrame(
        {"hidden1": rng.normal(size=(9, 48))}, schema={"hidden1": pl.Array(pl.Float64, 48)}
    )
    save_file(dict(np.load(folder / "recorded.npz")), folder / "recorded.safetensors")
    recorded.with_columns(pl.col("hidden1").arr.to_list()).write_parquet(folder / "recorded.parquet")
    return {
        "inputs": [folder / "pixels.npz"],
        "labelled": [folder / "inputs.npz"],
        "labels": [folder / "labels.npz"],
        "recorded": [folder / f"recorded.{kind}" for kind in ("npz", "parquet", "safetensors")],
        "states": [folder / "states.npz"],
        "sequences": [folder / "ids.npy", folder / "ids.txt", folder / "ids.npz"],
    }


def _weights(folder: Path) -> dict[str, list[Path]]:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4)
    )
    # without the counter, which a safetensors file would hold first: layers are wired as they come
    state = {name: value for name, value in net.state_dict().items() if value.ndim}
    save_file(state, folder / "weights.safetensors")
    torch.save(state, folder / "weights.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    np.savez(folder / "weights.npz", **{name: value.numpy() for name, value in state.items()})
    return {
        "safetensors": [folder / "weights.safetensors"],
        "gguf-llama": [_gguf_llama(folder / "llama.gguf")],
        "gguf": [_gguf(folder / "weights.gguf", state)],
        "torch-zip": [folder / "weights.pt"],
        "torch-pickle": [folder / "legacy.pt"],
        "npz-weights": [folder / "weights.npz"],
    }


def _gguf(path: Path, state: dict[str, Any]) -> Path:
    """The same weights as a GGUF file, with a packed matrix beside them and metadata of every type."""
    kinds = {g.U8: 7, g.F32: 0.5, g.BOOL: True, g.STRING: "net", g.ARRAY: (g.STRING, ["a", "b"]), g.I64: -1}
    entries = [g.entry(f"key.{kind}", kind, value) for kind, value in kinds.items()]
    entries.append(g.entry("general.architecture", g.STRING, "toy"))
    infos, data = [], b""
    tensors = [(name, value.numpy().tobytes(), value.shape, 0) for name, value in state.items()]
    for name, raw, shape, kind in [*tensors, ("last.weight", bytes([0, 60, *range(32)]) * 3, (3, 32), 8)]:
        infos.append(g.info(name, tuple(reversed(shape)), kind, len(data)))
        data += raw + bytes(-len(raw) % 32)
    path.write_bytes(g.file(entries, infos, data))
    return path


def _gguf_llama(path: Path) -> Path:
    """A tiny network that transformers has a class for."""
    from ggufmodels import tiny, write_gguf

    return write_gguf(path, tiny("llama"), "llama")


def _tables(folder: Path) -> dict[str, list[Path]]:
    rng = np.random.default_rng(1)
    pairs = pl.DataFrame(
        {
            "entity": [f"e{k}" for k in rng.integers(0, 12, 60)],
            "property": [f"p{k}" for k in rng.integers(0, 8, 60)],
            "time": np.arange(60),
            "class": ["a"] * 60,
        }
    )
    steps = np.arange(30)
    runs = pl.concat(
        pl.DataFrame(
            {
                "step": steps,
                "metric": 1 / (1 + np.exp(-(steps - 10 - run) / 2)) + 0.01 * rng.normal(size=30),
                "n_entities": [50 * (run + 1)] * 30,
                "n_properties": [40] * 30,
                "run": [run] * 30,
            }
        )
        for run in range(3)
    )
    x = np.arange(1, 26) * 20.0
    curves = pl.concat(
        pl.DataFrame({"skill": [k] * 25, "x": x, "strength": 1 / (1 + np.exp(-(x - 60.0 * k) / 20))})
        for k in (1, 2, 3)
    )
    made = {}
    for name, frame in {"pairs": pairs, "runs": runs, "curves": curves}.items():
        frame.write_csv(folder / f"{name}.csv")
        frame.write_parquet(folder / f"{name}.parquet")
        made[name] = [folder / f"{name}.csv", folder / f"{name}.parquet"]
    return made


def _ids_model(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(2)
    tensors = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("table", (300, 4)), ("w", (4, 4)))
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "w"], ["h"]),
        helper.make_node("Add", ["h", "embedded"], ["block"]),
        helper.make_node("MatMul", ["block", "w"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 4])
    graph = helper.make_graph(nodes, "ids", [ids], [result], tensors)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    onnx.save(model, path)


def _config_folder(folder: Path) -> Path:
    """A tiny vision transformer in the layout of transformers."""
    import torch
    import transformers
    from safetensors.torch import save_file

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, architectures=["ViTForImageClassification"], **sizes
    )
    folder.mkdir(exist_ok=True)
    save_file(transformers.ViTForImageClassification(config).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    return folder


def _store(folder: Path) -> Path:
    """A store with two graphs, a trace of each, metrics, and results of most analyses."""
    store = folder / "store.duckdb"
    for name in ("conv", "dense"):
        graph = f"digits_{name}"
        model = str(folder / f"{name}.onnx")
        lines = [
            ["export", model, str(store), "--name", graph],
            ["trace", str(store), str(folder / "pixels.npz"), "--model", model, "--graph", graph],
            ["emergence", str(store), "--graph", graph, "--thresholds", "0.01,0.1"],
            ["prune", str(store), "--graph", graph, "--level", "0.3,0.6"],
            ["percolate", str(store), "--graph", graph, "--seeds", "2"],
            ["topology", str(store), "--graph", graph],
        ]
        if name == "dense":
            lines.append(["landscape", model, *LANDSCAPE.split(), "--store", str(store)])
        for line in lines:
            assert main([*line, "--quiet", "--out", "/dev/null"]) == 0, line
    return store


def _snapshots(folder: Path) -> Path:
    """A store of a training, with metrics of every step."""
    import torch

    import emergraph

    torch.manual_seed(0)
    store = folder / "snapshots.duckdb"
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    with emergraph.record(net, store, inputs=torch.randn(8, 6)) as recorder:
        for epoch in range(8):
            with torch.no_grad():
                net[0].weight.mul_(1 + 0.1 * epoch)
            recorder.step(epoch, loss=1 / (1 + epoch))
    return store


__all__ = ["COMMANDS", "LANDSCAPE", "SHARES", "WEIGHTS", "make_seeds"]
