"""The layers of a graph for Model Explorer (ai-edge-model-explorer): a graph, and data on its nodes."""

import json
from pathlib import Path

import polars as pl

from emergraph.graphstore.reader import GraphReader

GRADIENT = [{"stop": 0, "bgColor": "#f5f7fa"}, {"stop": 1, "bgColor": "#c8553d"}]
"""Colours of the least and of the largest value."""


def write_model_explorer(reader: GraphReader, folder: Path) -> None:
    """Write `graph.json`, whose nodes are layers, and `data-NAME.json` with a number for each of them.

    Data are by the name of the tensor that a layer's activation is in, where only that layer has it, and else
    by the layer's name: so they fit `graph.json` as well as the model file itself, opened in the same place.
    """
    folder.mkdir()
    layers = _layers(reader)
    keys = {row["id"]: row["key"] for row in layers.select("id", "key").iter_rows(named=True)}
    nodes = _nodes(reader, layers)
    _write(folder / "graph.json", [{"id": reader.name, "nodes": nodes}])
    for name, values in _measures(reader, layers).items():
        results = {keys[layer]: {"value": value} for layer, value in values.items()}
        data = {reader.name: {"name": f"emergraph: {name}", "results": results, "gradient": GRADIENT}}
        _write(folder / f"data-{name.replace(' ', '-')}.json", data)


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


def _layers(reader: GraphReader) -> pl.DataFrame:
    """The layers with the key by which data on them are found."""
    tensor = pl.col("activation_tensor")
    alone = tensor.is_not_null() & (tensor.len().over("activation_tensor") == 1)
    return reader.layers().with_columns(pl.when(alone).then(tensor).otherwise(pl.col("name")).alias("key"))


def _nodes(reader: GraphReader, layers: pl.DataFrame) -> list[dict[str, object]]:
    sources: dict[int, dict[int, int]] = {}
    for row in reader.blocks().iter_rows(named=True):
        for source in [row["src_layer"]] if row["src_layer"] is not None else row["src_layers"]:
            of = sources.setdefault(row["layer"], {})
            of[source] = of.get(source, 0) + 1
    return [_node(row, sorted(sources.get(row["id"], {}))) for row in layers.iter_rows(named=True)]


def _node(row: dict[str, object], sources: list[int]) -> dict[str, object]:
    name = str(row["name"])
    shown = ("op", "kind", "n_units", "n_params", "n_zeros", "dtype", "depth", "split_by")
    tensor = {"key": "tensor_name", "value": str(row["key"])}
    return {
        "id": f"layer-{row['id']}",
        "label": name.rsplit("/", 1)[-1],
        "namespace": name.rpartition("/")[0].strip("/"),
        "attrs": [{"key": key, "value": str(row[key])} for key in shown if row[key] not in (None, "")],
        "incomingEdges": [{"sourceNodeId": f"layer-{source}"} for source in sources],
        "outputsMetadata": [{"id": "0", "attrs": [tensor]}],
    }


def _measures(reader: GraphReader, layers: pl.DataFrame) -> dict[str, dict[int, float]]:
    """What is known of each layer, by the layer's id."""
    with_weights = layers.filter(pl.col("n_params") > 0)
    measures = {
        "units": layers.select("id", value="n_units"),
        "parameters": layers.select("id", value="n_params"),
        "share of zeros": with_weights.select("id", value=pl.col("n_zeros") / pl.col("n_params")),
    }
    if reader.traces().height:
        silent = (pl.col("min") == 0) & (pl.col("max") == 0)
        units = reader.units().select(pl.col("id").alias("unit"), "layer")
        active = reader.activations().join(units, on="unit").group_by("layer")
        measures["share of silent units"] = active.agg(silent.mean().alias("value")).rename({"layer": "id"})
    return {name: dict(frame.select("id", "value").rows()) for name, frame in measures.items()}
