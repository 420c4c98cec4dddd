"""Local-optima networks of a survey as rows: full, monotonic and compressed."""

from collections.abc import Iterator
from dataclasses import dataclass

import igraph

from emergraph.analysis.landscape.hypercube import hypercube_lon
from emergraph.analysis.landscape.lon import compressed, compressed_membership, monotonic, sinks
from emergraph.analysis.landscape.surveyresult import Survey


@dataclass(frozen=True)
class Network:
    """One form of one network."""

    network: str
    """masks or descents."""
    form: str
    """full, monotonic or compressed."""
    graph: igraph.Graph
    """Vertex attribute loss, edge attribute weight."""
    part_of: list[int]
    """Node of the compressed form, per node."""


def survey_networks(survey: Survey) -> list[Network]:
    """Return all forms of the networks that a survey holds."""
    found: list[Network] = []
    if survey.masks is not None:
        found += network_forms("masks", hypercube_lon(survey.masks.losses), precision=survey.noise_floor)
    optima = survey.extras.optima
    if optima is not None:
        found += network_forms("descents", optima.sampled.graph, precision=optima.precision)
    return found


def network_forms(name: str, lon: igraph.Graph, *, precision: float) -> list[Network]:
    """Return a network with its monotonic and compressed forms.

    Args:
        name: Of the network.
        lon: From `lon.build_lon`.
        precision: Losses at most this far apart are equal.

    Example:
        >>> from emergraph.analysis.landscape.lon import build_lon
        >>> forms = network_forms("masks", build_lon([1.0, 0.0], [0], [1]), precision=0.0)
        >>> [(form.form, form.graph.vcount()) for form in forms]
        [('full', 2), ('monotonic', 2), ('compressed', 2)]
    """
    downhill = monotonic(lon, precision=precision)
    parts = compressed_membership(downhill, precision=precision)
    small = compressed(downhill, precision=precision)
    return [
        Network(name, "full", lon, parts),
        Network(name, "monotonic", downhill, parts),
        Network(name, "compressed", small, list(range(small.vcount()))),
    ]


def node_rows(network: Network) -> Iterator[dict[str, object]]:
    """Yield the rows of `landscape_optima`."""
    graph = network.graph
    weights = "weight" if graph.ecount() else None
    inward = graph.strength(mode="in", weights=weights)
    outward = graph.strength(mode="out", weights=weights)
    bottom = set(sinks(graph).tolist())
    squeezed = network.form == "compressed"
    for vertex in graph.vs:
        known = {} if squeezed else vertex.attributes()
        yield {
            "network": network.network,
            "form": network.form,
            "node": vertex.index,
            "loss": vertex["loss"],
            "state": known.get("state"),
            "basin": known.get("basin"),
            "optima": vertex["optima"] if squeezed else 1,
            "part_of": network.part_of[vertex.index],
            "sink": vertex.index in bottom,
            "in_strength": float(inward[vertex.index]),
            "out_strength": float(outward[vertex.index]),
        }


def edge_rows(network: Network) -> Iterator[dict[str, object]]:
    """Yield the rows of `landscape_lon`."""
    for edge in network.graph.es:
        yield {
            "network": network.network,
            "form": network.form,
            "source": edge.source,
            "target": edge.target,
            "weight": edge["weight"],
        }
