"""Names and order of operations beside networkx."""

from itertools import pairwise

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from emergraph.exporters.onnxfile.scopes import run_order, scope_findings, scopes
from emergraph.exporters.onnxfile.traverse import Body, bodies


def model_of(edges, n_nodes):
    """Operation i writes t{i} and reads t{j} for each edge (j, i)."""
    nodes = [
        helper.make_node("Op", [f"t{j}" for j, target in edges if target == i], [f"t{i}"], name=f"n{i}")
        for i in range(n_nodes)
    ]
    return helper.make_model(helper.make_graph(nodes, "g", [], []))


graphs = st.integers(1, 8).flatmap(
    lambda n: st.tuples(
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=14, unique=True),
        st.just(n),
    )
)


@given(graphs)
def test_order_or_circle(case):
    edges, n_nodes = case
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(range(n_nodes))
    (scope,) = scopes(bodies(model_of(edges, n_nodes)))
    order, circle = run_order(scope)
    if nx.is_directed_acyclic_graph(graph):
        assert circle == []
        if order is None:
            assert all(source < target for source, target in edges)
        else:
            assert order == list(nx.lexicographical_topological_sort(graph))
            assert order != list(range(n_nodes))
    else:
        assert order is None
        ids = [int(label.split("'")[1][1:]) for label in circle if "more" not in label]
        assert ids[0] == ids[-1]
        if len(ids) == len(circle):
            assert all(graph.has_edge(source, target) for source, target in pairwise(ids))
            assert len(set(ids)) == len(ids) - 1


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), max_size=6))
def test_free_names_of_nested_graphs_are_what_nothing_around_defines(steps):
    """Each level reads one name and writes another; the naive way collects both from the inside out."""
    graph, expected = None, set()
    for level, (reads, writes) in enumerate(steps):
        node = helper.make_node("Op", [reads], [writes], name=f"n{level}")
        if graph is not None:
            node.attribute.append(helper.make_attribute("body", graph))
        graph = helper.make_graph([node], "g", [], [])
        expected = (expected | {reads}) - {writes}
    if graph is None:
        return
    all_bodies = bodies(helper.make_model(graph))
    assert scopes(all_bodies)[0].free == expected


def test_many_subgraphs_beside_each_other_take_linear_time():
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "b", [], [])
    nodes = []
    for index in range(3000):
        node = helper.make_node("If", ["x"], [f"y{index}"])
        node.attribute.append(helper.make_attribute("then_branch", body))
        nodes.append(node)
    model = helper.make_model(helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, [1])], []))
    found: list[Body] = bodies(model)
    assert len(found) == 3001
    assert list(scope_findings(found, scopes(found))) == []
