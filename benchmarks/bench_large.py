"""A model of a billion weights whose edges stay in its file: export, path counts, one question in SQL.

`python benchmarks/bench_large.py [--weights 1.1e9 | --llama 1.1B|6.7B] [--zeros 0.5] [--folder FOLDER]` makes
shards of random bfloat16 weights of a chain of dense layers, or of a Llama, runs each command in a process
of its own, prints CPU seconds and peak anonymous memory beside a bare pass in NumPy, and removes everything
again. Disk space is checked first.
"""

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import duckdb
import ml_dtypes
import numpy as np

import emergraph

WIDTH = 4096
SHARD_LAYERS = 16
PIECE = 1 << 16
"""Entries that the bare pass looks at together: they fit a core's cache."""
QUESTION = "SELECT count(*) AS n, sum(l1) AS l1 FROM edges WHERE block = {block}"


Shapes = dict[str, tuple[int, ...]]
"""Tensors of a shard."""


@dataclass(frozen=True)
class Llama:
    """Sizes of a Llama, named as in its configuration."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int = 32_000

    def shards(self) -> list[Shapes]:
        """The tensors: the table and eleven layers, eleven layers each, the head."""
        hidden, inner = self.hidden_size, self.intermediate_size
        keys = hidden * self.num_key_value_heads // self.num_attention_heads
        parts = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        table = (self.vocab_size, hidden)
        found: list[Shapes] = [{"model.embed_tokens.weight": table}]
        for layer in range(self.num_hidden_layers):
            if layer and layer % 11 == 0:
                found.append({})
            found[-1] |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in parts.items()}
        return [*found, {"model.norm.weight": (hidden,), "lm_head.weight": table}]

    def write_config(self, folder: Path) -> None:
        """Write the configuration, as transformers reads it."""
        fixed = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }
        (folder / "config.json").write_text(json.dumps(asdict(self) | fixed))


LLAMAS = {"1.1B": Llama(2048, 5632, 22, 32, 4), "6.7B": Llama(4096, 11008, 32, 32, 32)}


def chain(n_layers: int) -> list[Shapes]:
    """The shards of a chain of dense layers."""
    names = [f"layers.{k:03}.weight" for k in range(n_layers)]
    cuts = range(0, n_layers, SHARD_LAYERS)
    return [dict.fromkeys(names[first : first + SHARD_LAYERS], (WIDTH, WIDTH)) for first in cuts]


def make_model(folder: Path, shards: list[Shapes], zeros: float) -> Path:
    """Write shards of random bfloat16 tensors, a share of the matrices zero, and their index."""
    rng = np.random.default_rng(0)
    placed: dict[str, str] = {}
    for number, shapes in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header, end = {}, 0
        for name, shape in shapes.items():
            begin, end = end, end + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for shape in shapes.values():
                _write_random(stream, rng, shape, zeros if len(shape) > 1 else 0.0)
        placed |= dict.fromkeys(shapes, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return index


def _write_random(stream: BinaryIO, rng: np.random.Generator, shape: tuple[int, ...], zeros: float) -> None:
    """Write values row by row in pieces; no larger memory is taken."""
    left = math.prod(shape)
    while left:
        n = min(left, 1 << 24)
        values = rng.standard_normal(n, dtype=np.float32) * np.float32(0.02)
        if zeros:
            values[rng.random(n, dtype=np.float32) < zeros] = 0
        stream.write(values.astype(ml_dtypes.bfloat16).tobytes())
        left -= n


def bare_pass(index: Path) -> float:
    """CPU seconds of `mask @ vectors` over the same mapped codes."""
    shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    rng, spent = np.random.default_rng(0), 0.0
    for shard in shards:
        data = np.memmap(index.parent / shard, dtype=np.uint8, mode="r")
        first = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:first].tobytes())
        for told in header.values():
            width = told["shape"][-1]
            codes = data[first:][slice(*told["data_offsets"])].view(np.uint16).reshape(-1, width)
            vectors, rows = rng.random((width, 2)), PIECE // width
            begin = time.process_time()
            for row in range(0, len(codes), rows):
                ((codes[row : row + rows] & 0x7FFF) != 0).astype(np.float64) @ vectors
            spent += time.process_time() - begin
    return spent


def measured(words: Sequence[str]) -> tuple[float, float, int, str]:
    """CPU seconds, wall seconds and peak anonymous bytes of a command, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    peak = 0
    # the interpreter that runs this, and a module of this package
    with subprocess.Popen(
        [sys.executable, "-m", "emergraph", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            peak = max(peak, sum(_anonymous(process.pid)))
            time.sleep(0.05)
        printed = process.stdout.read() if process.stdout else ""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"emergraph {' '.join(words)}: exit status {process.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start, peak, printed


def _anonymous(process: int) -> Iterator[int]:
    from emergraph.processes import held_memory

    yield held_memory(process)


def main() -> None:
    """Make, measure, remove."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--weights", type=float, default=1.1e9)
    options.add_argument("--zeros", type=float, default=0.0)
    options.add_argument("--folder", type=Path, default=None)
    options.add_argument("--analyses", action="store_true", help="Also percolate, topology and prune.")
    options.add_argument(
        "--llama", choices=LLAMAS, help="A Llama of that size, instead of a chain of layers."
    )
    options.add_argument("--model", type=Path, help="A file or folder that is there, instead of a made one.")
    given = options.parse_args()
    if given.model:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            _run(Path(folder), [str(given.model)], analyses=given.analyses)
        return
    llama = LLAMAS.get(given.llama)
    shards = llama.shards() if llama else chain(max(2, round(given.weights / WIDTH**2)))
    weights = sum(math.prod(shape) for shapes in shards for shape in shapes.values())
    needed = int(2.2 * weights) + (1 << 30)
    place = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        free = shutil.disk_usage(place).free
        if free < needed:
            raise SystemExit(
                f"{needed / 1e9:.1f} GB are needed in {place.parent}, {free / 1e9:.1f} GB are free"
            )
        index = make_model(place, shards, given.zeros)
        print(f"{weights / 1e9:.2f} G weights, {given.zeros:.0%} of them zero")
        print(f"{'bare mask @ vectors':24} {bare_pass(index):8.1f} CPU s", flush=True)
        if llama:
            llama.write_config(place)
        source = [str(place)] if llama else [str(index), "--wire", "sequential"]
        _run(place, source, analyses=given.analyses)
    finally:
        shutil.rmtree(place)


def _run(place: Path, source: list[str], *, analyses: bool) -> None:
    store, activity = place / "net.duckdb", place / "activity.npz"
    patient = ["-q", "--time-limit", "3h"]
    export = ["export", source[0], str(store), *source[1:], "--edges", "in-place", *patient]
    _say("export --dry-run", [*export, "--dry-run"])
    _say("export", export)
    write_activity(store, activity)
    from_file = ["--model", source[0], "-q"]
    commands = {
        "trace --import": ["trace", str(store), "--import", str(activity), *patient],
        "emergence --dry-run": ["emergence", str(store), "--dry-run", "-q"],
        "emergence": ["emergence", str(store), *from_file, "--no-save", "--threshold", "0.5"],
        "sql, one block": ["sql", str(store), question(store), *from_file],
    }
    for name, more in (("percolate", []), ("topology", ["--no-spectra"]), ("prune", [])) if analyses else ():
        commands[name] = [name, str(store), *from_file, "--no-save", *more]
    for name, words in commands.items():
        _say(name, words)
    cpu, wall, told = warm_count(store, source[0])
    print(f"{'emergence, warm':24} {cpu:8.1f} CPU s {wall:8.1f} s, planned {told:.1f} s")
    print(f"store {store.stat().st_size / 1e6:.1f} MB")


def warm_count(store: Path, model: str) -> tuple[float, float, float]:
    """CPU and wall seconds of a count with its checksums, as warm as the bare pass, and its plan."""
    graph = emergraph.open(store).graph()
    for _ in range(2):
        told = graph.emergence_plan().seconds
        begin, start = time.process_time(), time.perf_counter()
        graph.emergence(threshold=0.5, model=model, save=False)
        cpu, wall = time.process_time() - begin, time.perf_counter() - start
    return cpu, wall, told


def _say(name: str, words: Sequence[str]) -> None:
    cpu, wall, peak, printed = measured(words)
    print(f"{name:24} {cpu:8.1f} CPU s {wall:8.1f} s {peak / 2**20:8.0f} MiB", flush=True)
    if "dry-run" in name:
        told = [line for line in printed.splitlines() if "second" in line or "size" in line]
        print("    " + "; ".join(told))


def write_activity(store: Path, path: Path) -> None:
    """Write random activations of four samples for every layer of a store."""
    rng = np.random.default_rng(1)
    with duckdb.connect(store, read_only=True) as connection:
        layers = connection.sql("SELECT name, n_units FROM layers ORDER BY id").fetchall()
    np.savez(path, **{name: rng.random((4, n_units), np.float32) for name, n_units in layers})


def question(store: Path) -> str:
    """A question about the fourth block of those in place."""
    with duckdb.connect(store, read_only=True) as connection:
        blocks = connection.sql("SELECT id FROM blocks WHERE place_steps IS NOT NULL ORDER BY id").fetchall()
    return QUESTION.format(block=blocks[3][0])


if __name__ == "__main__":
    main()
