"""Path counts against the known answers, against enumeration, and against the matrix form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.activity.contribution import contribution_scores
from emergraph.analysis.activity.scores import Activity, trace_scores
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence import pathcount
from emergraph.analysis.emergence.edgeform import removed_in_degree
from emergraph.analysis.emergence.pathcount import path_count_emergence, with_scale_free
from emergraph.analysis.emergence.views import count_view
from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.errors import InvalidInputError, UsageError
from emergraph.graphstore.records import EdgeKind, LayerKind

WEIGHT = EdgeKind.WEIGHT


def counts(graph, active, **options):
    result = path_count_emergence(graph, np.asarray(active, dtype=bool), options=EmergenceOptions(**options))
    return result.active.exact, result.any.exact


def dense_activity(sizes, active):
    return np.concatenate([np.arange(n) < a for n, a in zip(sizes, active, strict=True)])


@pytest.mark.parametrize(
    ("active", "expected"),
    [({1, 2, 3}, 6), ({2, 3}, 5), ({0, 3}, 2), ({0, 1, 2, 3}, 0), (set(), 0)],
    ids=["h123", "h23", "h03", "all", "none"],
)
def test_known_answers_of_the_dag(small, active, expected):
    edges = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    graph = small([1, 1, 1, 1], [(a, b, 1, WEIGHT) for a, b in edges]).graph()
    assert counts(graph, [u in active for u in range(4)])[0] == expected


@pytest.mark.parametrize(("active", "expected"), [({2, 4}, 5), ({3, 4}, 3)], ids=["h1", "h2"])
def test_known_answers_of_the_masked_net(small, active, expected):
    # x1, x2 = 0, 1; h1, h2 = 2, 3; y = 4; x1 -> h2 is masked.
    edges = [(0, 2), (1, 2), (1, 3), (2, 4), (3, 4)]
    graph = small([2, 2, 1], [(a, b, 1, WEIGHT) for a, b in edges]).graph()
    activity = [u in active for u in range(5)]
    assert counts(graph, activity)[0] == expected
    assert counts(dense_net([2, 2, 1]), activity)[0] == 5


@pytest.mark.parametrize(
    ("sizes", "active", "expected"),
    [
        ((2, 2), (1, 1), (1, 1)),
        ((3, 2, 2), (1, 1, 2), (8, 12)),
        ((4, 3, 2), (2, 2, 2), (14, 18)),
        ((4, 3, 2), (0, 3, 2), (36, 36)),
        ((3, 3, 3, 3), (1, 2, 1, 2), (23, 57)),
        ((784, 128, 64, 10), (150, 60, 40, 10), (16805800, 55267880)),
        ((784, 256, 128, 10), (150, 100, 64, 10), (44807464, 218410280)),
        ((10, 8, 4), (4, 3, 2), (64, 124)),
    ],
    ids=str,
)
def test_known_answers_of_dense_nets(sizes, active, expected):
    assert counts(dense_net(sizes), dense_activity(sizes, active)) == expected


def test_the_filter_form_of_a_convolutional_net_is_the_any_form_with_filters_inside():
    # (10, 8, 4) with 2 filters in the middle: sum over i < j of (n_i - a_i) a_j m_k between them = 52.
    n, a, m = (10, 8, 4), (4, 3, 2), (10, 2, 4)
    form = sum((n[i] - a[i]) * a[j] * np.prod(m[i + 1 : j]) for i in range(3) for j in range(i + 1, 3))
    assert form == 52
    # On the channel-level graph, widths are the filters: then both agree.
    sizes, on = (10, 2, 4), (4, 1, 2)
    closed = sum(
        (sizes[i] - on[i]) * on[j] * np.prod(sizes[i + 1 : j]) for i in range(3) for j in range(i + 1, 3)
    )
    assert counts(dense_net(sizes, kind=LayerKind.CONV), dense_activity(sizes, on))[1] == closed


@st.composite
def graphs(draw, small, *, kinds=(WEIGHT,), max_units=9):
    sizes = draw(st.lists(st.integers(1, 3), min_size=2, max_size=5).filter(lambda s: sum(s) <= max_units))
    shape = small(sizes, [])
    pairs = [(a, b) for a in range(shape.n) for b in range(shape.n) if shape.layer(a) < shape.layer(b)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=2 * len(pairs)))
    edges = [(a, b, draw(st.integers(1, 4)), draw(st.sampled_from(kinds))) for a, b in chosen]
    structural = draw(st.sets(st.integers(0, shape.n - 1), max_size=2))
    return small(sizes, edges, structural)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("endpoints", ["neurons", "all"])
@pytest.mark.parametrize("paths", ["units", "weights"])
def test_one_pass_equals_enumeration(small, brute_force, data, endpoints, paths):
    case = data.draw(graphs(small))
    active = data.draw(st.lists(st.booleans(), min_size=case.n, max_size=case.n))
    known = data.draw(st.lists(st.booleans(), min_size=case.n, max_size=case.n))
    hidden = data.draw(st.booleans())
    shuffle = data.draw(st.sampled_from([None, 3]))
    graph = case.graph(shuffle=shuffle)
    states = ["active" if on else "inactive" for on in active]
    for unit in range(case.n):
        left_out = hidden and graph.role[unit] != 1
        if not known[unit] or left_out or (endpoints == "neurons" and unit in case.structural):
            states[unit] = "transparent"
    options = EmergenceOptions(
        endpoints=endpoints, paths=paths, layers="hidden" if hidden else "all", exact=True
    )
    result = path_count_emergence(graph, Activity.given(np.array(active), np.array(known)), options=options)
    plain = [e[:3] for e in case.edges]
    for interior in ("active", "any"):
        expected = brute_force(plain, states, interior=interior, weights=paths == "weights")
        count = result.count(interior)
        assert count.exact == expected
        assert count.emergence.value == expected
        starts = result.layers[f"start_{interior}"].sum()
        assert starts == pytest.approx(1.0 if expected else 0.0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_pass_equals_the_matrix_form(small, data):
    case = data.draw(graphs(small))
    case.structural.clear()
    h = np.array(data.draw(st.lists(st.booleans(), min_size=case.n, max_size=case.n)), dtype=float)
    a = np.zeros((case.n, case.n))
    for src, dst, _, _ in case.edges:
        a[src, dst] += 1
    d, eye = np.diag(h), np.eye(case.n)
    active = (1 - h) @ a @ d @ np.linalg.inv(eye - d @ a @ d) @ h
    anyway = (1 - h) @ np.linalg.inv(eye - a) @ h
    got = counts(case.graph(), h > 0)
    assert got == (round(active), round(anyway))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_adding_an_edge_never_lowers_the_count(small, data):
    case = data.draw(graphs(small))
    active = data.draw(st.lists(st.booleans(), min_size=case.n, max_size=case.n))
    before = counts(case.graph(), active)
    src = data.draw(st.integers(0, case.sizes[0] - 1))
    dst = data.draw(st.integers(case.sizes[0], case.n - 1))
    case.edges.append((src, dst, 1, WEIGHT))
    after = counts(case.graph(), active)
    assert after[0] >= before[0]
    assert after[1] >= before[1]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_relabelling_changes_nothing(small, data):
    case = data.draw(graphs(small))
    active = np.array(data.draw(st.lists(st.booleans(), min_size=case.n, max_size=case.n)))
    layer = np.array([case.layer(u) for u in range(case.n)])
    new_label = np.arange(case.n)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    for index in range(len(case.sizes)):
        new_label[layer == index] = rng.permutation(new_label[layer == index])
    moved = small(
        case.sizes,
        [(int(new_label[a]), int(new_label[b]), m, k) for a, b, m, k in case.edges],
        {int(new_label[u]) for u in case.structural},
    )
    moved_active = np.zeros_like(active)
    moved_active[new_label] = active
    assert counts(moved.graph(), moved_active) == counts(case.graph(), active)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_all_active_counts_nothing(small, data):
    case = data.draw(graphs(small))
    assert counts(case.graph(), [True] * case.n) == (0, 0)
    assert counts(case.graph(), [False] * case.n) == (0, 0)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_nothing_counts_exactly_when_no_edge_leads_from_inactive_to_active(small, data):
    case = data.draw(graphs(small))
    case.structural.clear()
    active = data.draw(st.lists(st.booleans(), min_size=case.n, max_size=case.n))
    some_edge = any(not active[src] and active[dst] for src, dst, _, _ in case.edges)
    assert [count > 0 for count in counts(case.graph(), active)] == [some_edge, some_edge]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("paths", ["units", "weights"])
def test_edge_form_equals_its_definition(small, brute_force, data, paths):
    case = data.draw(graphs(small))
    active = data.draw(st.lists(st.booleans(), min_size=case.n, max_size=case.n))
    gone = data.draw(st.lists(st.booleans(), min_size=len(case.edges), max_size=len(case.edges)))
    kept = [edge for edge, out in zip(case.edges, gone, strict=True) if not out]
    removed = [edge for edge, out in zip(case.edges, gone, strict=True) if out]
    pruned = small(case.sizes, kept, case.structural)
    options = EmergenceOptions(paths=paths)
    missing = removed_in_degree(pruned.graph(), case.graph(), options=options)
    result = path_count_emergence(pruned.graph(), np.array(active), options=options, removed=missing)
    states = [
        "transparent" if u in case.structural else "active" if on else "inactive"
        for u, on in enumerate(active)
    ]
    # The paths of a removed edge u -> v: those of one more inactive unit that leads to v only.
    plain = [edge[:3] for edge in kept]
    weights = paths == "weights"
    for interior in ("active", "any"):
        without = brute_force(plain, states, interior=interior, weights=weights)
        expected = 0
        for _, dst, times, _ in removed:
            lone = [*plain, (case.n, dst, times)]
            expected += brute_force(lone, [*states, "inactive"], interior=interior, weights=weights) - without
        assert result.count(interior).edge_form.value == expected


def test_removed_edges_of_full_matrices():
    graph = dense_net([3, 2])
    assert removed_in_degree(graph).tolist() == [0, 0, 0, 0, 0]


def test_removed_edges_need_the_graph_before_pruning(small):
    full = small([2, 1], [(0, 2, 1, WEIGHT), (1, 2, 1, WEIGHT)])
    pruned = small([2, 1], [(0, 2, 1, WEIGHT)])
    assert removed_in_degree(pruned.graph(), full.graph()).tolist() == [0, 0, 1]
    with pytest.raises(UsageError, match="graph before pruning"):
        removed_in_degree(full.graph(), pruned.graph())
    with pytest.raises(UsageError, match="3 units, the graph 5"):
        removed_in_degree(dense_net([3, 2]), full.graph())


@settings(max_examples=80, deadline=None)
@given(data=st.data(), steps=st.integers(2, 3))
def test_unrolled_count_equals_enumeration_on_copies(small, brute_force, data, steps):
    case = data.draw(graphs(small, kinds=(WEIGHT, EdgeKind.RECURRENT), max_units=5))
    backward = data.draw(
        st.lists(st.tuples(st.integers(0, case.n - 1), st.integers(0, case.n - 1)), max_size=3, unique=True)
    )
    kind = data.draw(st.sampled_from([EdgeKind.RECURRENT, EdgeKind.NORM]))
    case.edges = case.edges[:6] + [(a, b, 1, kind) for a, b in backward]
    active = data.draw(st.lists(st.booleans(), min_size=case.n, max_size=case.n))
    copies = []
    for src, dst, times, edge_kind in case.edges:
        onward = edge_kind is EdgeKind.RECURRENT or case.layer(src) >= case.layer(dst)
        for step in range(steps):
            if step + onward < steps:
                copies.append((step * case.n + src, (step + onward) * case.n + dst, times))
    states = [
        "transparent" if u in case.structural else "active" if on else "inactive"
        for u, on in enumerate(active)
    ] * steps
    options = EmergenceOptions(kinds=(WEIGHT, EdgeKind.RECURRENT, EdgeKind.NORM), unroll=steps, exact=True)
    result = path_count_emergence(case.graph(), np.array(active), options=options)
    for interior in ("active", "any"):
        expected = brute_force(copies, states, interior=interior, weights=False)
        assert result.count(interior).exact == expected


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flows_split_the_count_by_both_ends(small, brute_force, data):
    case = data.draw(graphs(small))
    case.structural.clear()
    active = np.array(data.draw(st.lists(st.booleans(), min_size=case.n, max_size=case.n)))
    result = path_count_emergence(case.graph(), active, options=EmergenceOptions(by_end_layer=True))
    plain = [e[:3] for e in case.edges]
    for interior in ("active", "any"):
        total = brute_force(
            plain, ["active" if on else "inactive" for on in active], interior=interior, weights=False
        )
        assert result.count(interior).exact == total
        flows = result.flows.filter(interior=interior)
        by_start = dict(zip(flows["start_layer"], flows["share"], strict=True))
        assert sum(flows["share"]) == pytest.approx(1.0 if total else 0.0)
        assert all(start < end for start, end in zip(flows["start_layer"], flows["end_layer"], strict=True))
        assert set(by_start) == set(result.layers.filter(result.layers[f"start_{interior}"] > 0)["layer"])


def test_flows_of_a_dense_net_have_the_closed_form():
    sizes, on = (4, 3, 2), (2, 2, 2)
    result = path_count_emergence(
        dense_net(sizes), dense_activity(sizes, on), options=EmergenceOptions(by_end_layer=True)
    )
    flows = {
        (r["interior"], r["start_layer"], r["end_layer"]): round(10 ** r["log10"])
        for r in result.flows.to_dicts()
    }
    assert flows == {
        ("active", 0, 1): 4, ("active", 0, 2): 8, ("active", 1, 2): 2,
        ("any", 0, 1): 4, ("any", 0, 2): 12, ("any", 1, 2): 2,
    }  # fmt: skip


def test_relative_variants_follow_their_definitions():
    net = dense_net([3, 2, 2])
    result = path_count_emergence(
        net, dense_activity((3, 2, 2), (1, 1, 2)), options=EmergenceOptions(dense_params=20)
    )
    assert result.active.per_param.value == 8 / 10
    assert result.active.per_dense_param.value == 8 / 20
    assert result.active.per_density.value == 8 / (10 / 20)
    assert result.active.per_density.log10 == pytest.approx(np.log10(16))


def test_left_out_edges_are_reported(small):
    case = small([1, 1], [(0, 1, 1, WEIGHT), (1, 1, 1, EdgeKind.RECURRENT), (0, 1, 1, EdgeKind.OPAQUE)])
    result = path_count_emergence(case.graph(), np.array([False, True]))
    assert result.edges_followed == {WEIGHT: 1}
    assert result.edges_left_out == {EdgeKind.RECURRENT: 1, EdgeKind.OPAQUE: 1}
    assert any("1 recurrent" in note for note in result.notes())


def test_opaque_edges_count_on_request(small):
    case = small([1, 1], [(0, 1, 1, WEIGHT), (0, 1, 1, EdgeKind.OPAQUE)])
    assert counts(case.graph(), [False, True], kinds=("weight", "opaque")) == (2, 2)


@pytest.mark.parametrize(
    ("unmeasured", "expected"), [("transparent", 1), ("inactive", 1), ("active", 2)], ids=str
)
def test_unmeasured_units_follow_the_rule_and_are_counted(small, unmeasured, expected):
    case = small([1, 1, 1], [(0, 1, 1, WEIGHT), (1, 2, 1, WEIGHT)])
    activity = Activity.given(np.array([False, False, True]), np.array([True, False, True]))
    result = path_count_emergence(case.graph(), activity, options=EmergenceOptions(unmeasured=unmeasured))
    assert result.active.exact == expected
    assert result.n_unmeasured == 1
    assert any("1 units have no measured activity" in note for note in result.notes())


def test_interiors_can_be_counted_alone():
    result = path_count_emergence(
        dense_net([3, 2, 2]),
        dense_activity((3, 2, 2), (1, 1, 2)),
        options=EmergenceOptions(interiors=("any",)),
    )
    assert result.any.exact == 12
    with pytest.raises(UsageError, match="'active' was not counted"):
        _ = result.active


def test_cycles_need_a_number_of_steps():
    with pytest.raises(UsageError, match="recurrent edges may run in cycles"):
        EmergenceOptions(kinds=(WEIGHT, EdgeKind.RECURRENT))


@pytest.mark.parametrize(
    "options",
    [{"endpoints": "some"}, {"interiors": ()}, {"unroll": 0}, {"dense_params": 0}, {"kinds": ("wires",)}],
    ids=str,
)
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        EmergenceOptions(**options)


def test_activity_of_another_graph_is_refused():
    with pytest.raises(InvalidInputError, match="one entry for each of 5 units"):
        path_count_emergence(dense_net([3, 2]), np.ones(4, dtype=bool))


def test_an_edge_against_the_order_is_refused(small):
    case = small([1, 1], [(1, 0, 1, WEIGHT)])
    with pytest.raises(InvalidInputError, match="topological order"):
        path_count_emergence(case.graph(), np.array([True, False]))


def test_to_dict_is_plain():
    import json

    result = path_count_emergence(dense_net([3, 2]), np.zeros(5, dtype=bool))
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["counts"]["active"]["exact"] == 0
    assert plain["counts"]["active"]["emergence"] == {"value": 0.0, "log10": None}
    assert plain["options"]["interiors"] == ["active", "any"]


def test_beside_e_stands_where_it_starts_and_e_by_contribution(monkeypatch):
    graph = dense_net([2, 3, 1])
    samples = np.array([[0.0, 0.0, 1.0, 1.0, 0.0, 1.0]])
    trace = UnitTrace.from_samples(samples)
    scores = trace_scores("mean", trace)
    plain = path_count_emergence(graph, scores.above())
    # each of two inputs: two active units, each with a path on; the silent unit of the middle: one
    assert plain.starts["active"] == ("layer0", pytest.approx(8 / 9))
    found = with_scale_free(plain, graph, scores.rule, trace)
    expected = path_count_emergence(graph, contribution_scores(graph, trace).above())
    assert [c.exact for c in found.scale_free] == [c.exact for c in expected.counts]
    assert found.to_dict()["scale_free"]["active"]["exact"] == expected.active.exact
    assert found.to_dict()["starts"]["active"]["layer"] == "layer0"
    assert count_view(found).facts["starts most, interior active"] == "layer0, 88.9 % of E"
    own = contribution_scores(graph, trace)
    assert with_scale_free(expected, graph, own.rule, trace).scale_free == ()
    for limit, counted in ((graph.n_edges, True), (graph.n_edges - 1, False)):
        monkeypatch.setattr(pathcount, "BESIDE_EDGES", limit)
        assert bool(with_scale_free(plain, graph, scores.rule, trace).scale_free) == counted


def test_an_e_of_zero_starts_nowhere():
    assert path_count_emergence(dense_net([2, 1]), np.ones(3, dtype=bool)).starts == {}
