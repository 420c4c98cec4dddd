"""One position carries something else than the others: layers are as wide as their weights all the same."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from emergraph.exporters.sources import export_module  # noqa: E402
from emergraph.exporters.traces.record import record_trace  # noqa: E402
from emergraph.exporters.traces.samples import RandomInputs  # noqa: E402
from emergraph.graphstore.store import open_store  # noqa: E402

WIDTH = 8


class Decoder(nn.Module):
    """One causal block with rotary embedding from position `first`, then logits."""

    def __init__(self, first):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, WIDTH), nn.Linear(WIDTH, 11, bias=False)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.norm, self.up, self.down = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        angle = torch.outer(torch.arange(5) + first, torch.tensor([1.0, 0.1]))
        self.register_buffer("cos", torch.cat([angle, angle], -1).cos())
        self.register_buffer("sin", torch.cat([angle, angle], -1).sin())

    def turn(self, x):
        x = x.view(x.shape[0], 5, 2, 4).transpose(1, 2)
        return x * self.cos + torch.cat([-x[..., 2:], x[..., :2]], -1) * self.sin

    def forward(self, ids):
        x = self.embed(ids)
        y = self.norm(x)
        v = self.v(y).view(x.shape[0], 5, 2, 4).transpose(1, 2)
        mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
        scores = (self.turn(self.q(y)) @ self.turn(self.k(y)).transpose(-1, -2)).masked_fill(mask, -1e9)
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))
        return self.head(x + self.down(functional.silu(self.up(self.norm(x)))))


class Vision(nn.Module):
    """A vision transformer that reads its class token, or the mean of its patches."""

    def __init__(self, *, class_token):
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, WIDTH, 4, 4), nn.Linear(WIDTH, 3)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH)) if class_token else None
        self.place = nn.Parameter(torch.randn(1, 5 if class_token else 4, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        y = self.patch(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            y = torch.cat([self.token.expand(len(y), -1, -1), y], 1)
        y = self.encoder(y + self.place)
        return self.head(y[:, 0] if self.token is not None else y.mean(1))


def exported(module, args, folder, name, quiet):
    """A reader of the module's graph, and its ONNX file."""
    file = folder / f"{name}.onnx"
    with quiet(), open_store(folder / f"{name}.duckdb", mode="create") as store:
        export_module(module.eval(), args, store, onnx_path=file)
    return folder / f"{name}.duckdb", file


def test_rotary_embedding_from_position_zero_makes_the_graph_of_that_from_one(tmp_path, quiet):
    found = []
    for first in (0, 1):
        torch.manual_seed(0)
        store, _ = exported(Decoder(first), (torch.arange(5)[None],), tmp_path, f"from{first}", quiet)
        with open_store(store) as opened:
            graph = opened.graph()
            found.append((graph.layers(), graph.edges()))
    assert found[0][0].equals(found[1][0])
    assert found[0][1].equals(found[1][1])
    head = found[0][0].filter(name="head")
    assert head.select("n_units", "activation_tensor", "split_by").rows()[0][0::2] == (11, None)
    dense = found[0][0].filter(kind="dense")
    assert dense["activation_tensor"].null_count() == 0


def test_a_class_token_changes_its_source_and_the_pooling_alone(tmp_path, quiet):
    torch.manual_seed(0)
    whole = Vision(class_token=True)
    shared = {name: value for name, value in whole.state_dict().items() if name not in ("token", "place")}
    graphs = {}
    for class_token in (True, False):
        module = Vision(class_token=class_token)
        assert module.load_state_dict(shared, strict=False).unexpected_keys == []
        graphs[class_token] = exported(module, (torch.randn(1, 3, 8, 8),), tmp_path, f"v{class_token}", quiet)
    tables = []
    for store, _ in graphs.values():
        with open_store(store) as opened:
            layers = opened.graph().layers()
            weighted = layers.filter(layers["kind"].is_in(["dense", "conv"])).select(
                "id", "name", "n_units", "split_by"
            )
            blocks = opened.graph().blocks()
            tables.append(
                (
                    layers.drop("activation_tensor", "n_params", "n_zeros"),
                    weighted,
                    blocks.select("kind", "layer", "n_src", "n_dst", "n_edges"),
                    opened.graph().edges(),
                )
            )
    with_token, with_mean = tables
    assert with_token[1].equals(with_mean[1])
    assert with_token[1].select("name", "n_units").rows()[1:5] == [
        ("encoder.layers.0.self_attn.in_proj", 24),
        ("encoder.layers.0.self_attn.out_proj", 8),
        ("encoder.layers.0.linear1", 12),
        ("encoder.layers.0.linear2", 8),
    ]
    assert with_token[2].equals(with_mean[2])
    assert with_token[3].equals(with_mean[3])  # unit by unit, weights included


def test_every_layer_of_a_vision_transformer_is_traced(tmp_path, quiet):
    store, file = exported(Vision(class_token=True), (torch.randn(1, 3, 8, 8),), tmp_path, "vision", quiet)
    with open_store(store, mode="write") as opened:
        record_trace(opened, None, file, RandomInputs(4, seed=1))
        layers = opened.graph().layers()
        weighted = layers.filter(layers["kind"].is_in(["dense", "conv"]))
        sql = "SELECT layer, count(*) FROM unit_activations WHERE n > 0 GROUP BY layer"
        counted = dict(opened.connection.execute(sql).fetchall())
    assert [counted.get(row["id"]) for row in weighted.to_dicts()] == weighted["n_units"].to_list()


class Cross(nn.Module):
    """Learned or given queries that attend to tokens; the packed projection is cut into a list for it."""

    def __init__(self, *, learned):
        super().__init__()
        self.tokens, self.head = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 5)
        self.queries = nn.Parameter(torch.randn(1, 4, WIDTH)) if learned else None
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x, y):
        q = y if self.queries is None else self.queries.expand(len(x), -1, -1)
        keys = self.tokens(x)
        return self.head(q + self.attention(q, keys, keys)[0])


@pytest.mark.parametrize(("learned", "query"), [(False, 8), (True, 2 * 4)])
def test_the_projection_of_a_cross_attention(tmp_path, quiet, learned, query):
    """Where the queries are learned they are the weight: an output per head and query."""
    args = (torch.randn(1, 6, 3), torch.randn(1, 4, WIDTH))
    store, _ = exported(Cross(learned=learned), args, tmp_path, "cross", quiet)
    with open_store(store) as opened:
        layers = opened.graph().layers()
        dense = layers.filter(kind="dense")
        scores = layers.filter(kind="score")["n_units"].to_list()
        context = layers.filter(kind="context")["n_units"].to_list()
        known = opened.graphs().row(0, named=True)
    assert dense["split_by"].null_count() == dense.height == 5
    assert sorted(dense["n_units"].to_list()) == sorted([WIDTH, 16, query, WIDTH, 5])
    assert (scores, context) == (([], [4 * WIDTH]) if learned else ([2], [WIDTH]))
    assert known["n_parameters_understood"] == known["n_parameters"]
