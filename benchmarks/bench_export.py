"""Export throughput and memory, beside plain DuckDB, igraph and networkx on the same edges.

Run `python benchmarks/bench_export.py [--layers 8] [--width 1024] [--model FILE.onnx ...]`. A transformer
of the given size is made on the fly; files named with `--model` (MiniLM int8, say) are exported as well. Each
way runs in a child process, so that peak memory is its own; figures come from this one run. CPU seconds are
of all threads and of the start of Python too; where others use the machine, they are the figure to compare.

The export reads the file, runs the model once in a child of its own, traces every unit, and writes edges,
units, tensors and operations in one transaction; the others only take the edges.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))


def export(model: Path, folder: Path) -> dict[str, float]:
    from emergraph.exporters.export import ExportOptions, export_onnx
    from emergraph.graphstore.store import open_store

    path = folder / "export.duckdb"
    start = time.perf_counter()
    with open_store(path, mode="create") as store:
        summary = export_onnx(model, store, options=ExportOptions(force=True))
    seconds = time.perf_counter() - start
    assert summary.trace is not None
    edges = summary.trace.n_edges
    return {"edges": edges, "seconds": seconds, "bytes_per_edge": path.stat().st_size / edges}


def emergence(_model: Path, folder: Path) -> dict[str, float]:
    from emergraph.analysis.activity.scores import ActivityScores
    from emergraph.analysis.emergence.pathcount import path_count_emergence
    from emergraph.analysis.storedgraph import read_unit_graph
    from emergraph.graphstore.store import open_store

    start = time.perf_counter()
    with open_store(folder / "export.duckdb") as store:
        graph = read_unit_graph(store.graph())
        values = np.random.default_rng(0).random(graph.n_units)
        scores = ActivityScores(values=values, rule="mean", text="random number > {t}")
        result = path_count_emergence(graph, scores.above(0.5))
    seconds = time.perf_counter() - start
    return {"edges": graph.n_edges, "seconds": seconds, "log10": result.active.emergence.log10}


def plain_duckdb(_model: Path, folder: Path) -> dict[str, float]:
    import duckdb

    path = folder / "plain.duckdb"
    start = time.perf_counter()
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"ATTACH '{folder / 'export.duckdb'}' AS source (READ_ONLY)")
        connection.execute("CREATE TABLE connections AS SELECT * FROM source.connections")
        edges = connection.execute("SELECT count(*) FROM connections").fetchall()[0][0]
    seconds = time.perf_counter() - start
    return {"edges": edges, "seconds": seconds, "bytes_per_edge": path.stat().st_size / edges}


def _arrays(folder: Path, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import duckdb

    with duckdb.connect(str(folder / "export.duckdb"), read_only=True) as connection:
        found = connection.execute(f"SELECT src, dst, weight FROM connections LIMIT {limit}").fetchnumpy()
    return found["src"], found["dst"], found["weight"]


def igraph_graph(_model: Path, folder: Path) -> dict[str, float]:
    import igraph

    src, dst, weight = _arrays(folder, 10_000_000)
    start = time.perf_counter()
    graph = igraph.Graph(edges=list(zip(src.tolist(), dst.tolist(), strict=True)), directed=True)
    graph.es["weight"] = weight.tolist()
    return {"edges": graph.ecount(), "seconds": time.perf_counter() - start}


def networkx_graph(_model: Path, folder: Path) -> dict[str, float]:
    import networkx as nx

    src, dst, weight = _arrays(folder, 1_000_000)
    start = time.perf_counter()
    graph = nx.DiGraph()
    graph.add_weighted_edges_from(zip(src.tolist(), dst.tolist(), weight.tolist(), strict=True))
    return {"edges": graph.number_of_edges(), "seconds": time.perf_counter() - start}


WAYS = {
    "emergraph export": export,
    "emergraph emergence, both interiors": emergence,
    "DuckDB, copy of the edges only": plain_duckdb,
    "igraph, first 10 M edges": igraph_graph,
    "networkx, first 1 M edges": networkx_graph,
}


def measured(way: str, model: Path, folder: Path) -> dict[str, float]:
    """Run one way in a child process and read its figures."""
    command = [sys.executable, __file__, "--way", way, "--model", str(model), "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(model: Path, ways: list[str]) -> None:
    size = model.stat().st_size / 2**20
    print(f"\n{model.name}, {size:.0f} MiB\n")
    print("| way | edges | seconds | CPU seconds | M edges/s | peak MiB | child MiB | bytes/edge |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for way in ways:
            got = measured(way, model, Path(name))
            rate = got["edges"] / got["seconds"] / 1e6
            per_edge = f"{got['bytes_per_edge']:.2f}" if "bytes_per_edge" in got else ""
            print(
                f"| {way} | {got['edges']:,} | {got['seconds']:.1f} | {got['cpu']:.1f} | {rate:.2f} "
                f"| {got['peak']:.0f} | {got['child']:.0f} | {per_edge} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--way", choices=list(WAYS))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.way:
        got = WAYS[options.way](options.model[0], options.folder)
        got["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        got["cpu"] = sum(u.ru_utime + u.ru_stime for u in usage)
        got["child"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(json.dumps(got))
        return
    from synthetic import transformer

    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "transformer.onnx")
        width = options.width
        # In a child as well: the weights must not count as the parent's memory.
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
            f"from synthetic import transformer; transformer(Path({str(path)!r}), layers={options.layers}, "
            f"width={width}, heads={width // 64}, hidden={4 * width})"
        )
        assert callable(transformer)
        subprocess.run([sys.executable, "-c", code], check=True)
        report(path, list(WAYS))
    for model in options.model:
        report(model, list(WAYS)[:3])


if __name__ == "__main__":
    main()
