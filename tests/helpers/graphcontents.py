"""What a graph of a store is made of, without what says where it is from."""

import emergraph
from emergraph.graphstore.query import QueryLimits


def graph_of(store):
    """Layers, edges, tensors and operations of the only graph of a store, in an order of their own."""
    opened = emergraph.open(store)
    limits = QueryLimits(rows=1_000_000)
    return [
        opened.sql(query, limits=limits).rows()
        for query in (
            "SELECT name, kind, op, n_units, activation_tensor FROM layers ORDER BY id",
            "SELECT src, dst, kind, weight, l1, n_params FROM edges ORDER BY ALL",
            "SELECT name, dtype, shape, role, n_params, n_zeros, understood FROM tensors ORDER BY name",
            "SELECT op, traced_as, count(*) FROM operations GROUP BY ALL ORDER BY ALL",
        )
    ]
