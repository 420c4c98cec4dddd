"""Percolation of concept data against igraph, the published table, simulation and hand-made cases."""

import datetime as dt

import igraph
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.percolation.concepts import (
    ConceptOptions,
    PairColumns,
    concept_percolation,
    read_pairs,
)
from emergraph.analysis.percolation.paircurve import pair_curve
from emergraph.errors import InvalidInputError, UsageError

NO_NULLS = ConceptOptions(nulls=0)


def naive_components(n_entities, n_properties, entity, prop):
    """(entities, properties) of every component, by igraph."""
    edges = list(zip(entity.tolist(), (prop + n_entities).tolist(), strict=True))
    parts = igraph.Graph(n=n_entities + n_properties, edges=edges).connected_components()
    return [(sum(u < n_entities for u in part), sum(u >= n_entities for u in part)) for part in parts]


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 12), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_every_point_of_the_curve_is_what_igraph_finds(seed, n_entities, n_properties, draws):
    rng = np.random.default_rng(seed)
    pairs = np.unique(rng.integers(0, n_entities * n_properties, draws))
    rng.shuffle(pairs)
    entity, prop = pairs // n_properties, pairs % n_properties
    curve = pair_curve(entity, prop, n_entities=n_entities, n_properties=n_properties)
    for m in range(len(pairs) + 1):
        parts = naive_components(n_entities, n_properties, entity[:m], prop[:m])
        i = curve.at(m)
        assert curve.connected[i] == sum(e * k for e, k in parts)
        sizes = (curve.giant_entities[i], curve.giant_properties[i])
        if m:
            assert sizes in [part for part in parts if sum(part) == max(map(sum, parts))]


@given(st.integers(0, 10_000), st.integers(1, 80), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_a_table_with_repetitions_and_classes_gives_what_counting_finds(seed, rows, n_classes):
    rng = np.random.default_rng(seed)
    of_class = rng.integers(0, n_classes, rows)
    entity, prop = rng.integers(0, 5, rows) * 10 + of_class, rng.integers(0, 7, rows) * 10 + of_class
    frame = pl.DataFrame({"entity": entity, "property": prop, "kind": of_class})
    result = concept_percolation(frame, columns=PairColumns(of_class="kind"), options=NO_NULLS)
    connected = possible = 0
    expected = 0.0
    for each in set(of_class.tolist()):
        e, k = entity[of_class == each], prop[of_class == each]
        names_e, codes_e = np.unique(e, return_inverse=True)
        names_k, codes_k = np.unique(k, return_inverse=True)
        connected += sum(a * b for a, b in naive_components(len(names_e), len(names_k), codes_e, codes_k))
        possible += len(names_e) * len(names_k)
        expected += (len(names_e) * len(names_k)) ** 0.5
    n_pairs = len(set(zip(entity.tolist(), prop.tolist(), strict=True)))
    assert (result.n_pairs, result.n_observations) == (n_pairs, rows)
    assert (result.connected, result.n_possible) == (connected, possible)
    assert result.inferable == connected - n_pairs
    assert result.expected_threshold == pytest.approx(expected)
    assert result.curve["connected"][-1] == connected / possible
    assert result.curve["connected"].is_sorted()


def random_frame(n_entities, n_properties, pairs, seed):
    chosen = np.random.default_rng(seed).choice(n_entities * n_properties, pairs, replace=False)
    return pl.DataFrame({"entity": chosen // n_properties, "property": chosen % n_properties})


@pytest.mark.parametrize(
    ("n_e", "n_k", "x", "s_e", "s_k", "pairs"),
    [
        (1000, 1000, 1.5, 0.583, 0.583, 0.340),
        (1000, 1000, 2, 0.797, 0.797, 0.635),
        (1000, 1000, 3, 0.940, 0.940, 0.884),
        (900, 18000, 1.5, 0.790, 0.2328, 0.184),
        (900, 18000, 2, 0.955, 0.3477, 0.332),
        (900, 18000, 3, 0.999, 0.4882, 0.4875),
    ],
)
def test_random_pairs_follow_the_published_table(n_e, n_k, x, s_e, s_k, pairs):
    """Means of eight runs are within 0.02 of theory."""
    options = ConceptOptions(n_entities=n_e, n_properties=n_k, nulls=0)
    m = round(x * (n_e * n_k) ** 0.5)
    runs = [concept_percolation(random_frame(n_e, n_k, m, seed), options=options) for seed in range(8)]
    last = runs[0].curve.row(-1, named=True)
    assert [last[f"theory_{name}"] for name in ("entities", "properties", "connected")] == pytest.approx(
        [s_e, s_k, pairs], abs=6e-4
    )
    means = pl.concat(run.curve.tail(1) for run in runs).mean()
    assert means["giant_entities"][0] == pytest.approx(s_e, abs=0.02)
    assert means["giant_properties"][0] == pytest.approx(s_k, abs=0.02)
    assert means["connected"][0] == pytest.approx(pairs, abs=0.02)


def test_the_threshold_of_random_pairs_is_near_the_expected_one_and_classes_leave_it_there():
    columns = PairColumns(of_class="class")
    frame = random_frame(600, 900, 3000, 0)
    classes = 4
    rng = np.random.default_rng(1)
    of_class = rng.integers(0, classes, 6000)
    split = pl.DataFrame(
        {
            "entity": rng.integers(0, 600, 6000) * classes + of_class,
            "property": rng.integers(0, 900, 6000) * classes + of_class,
            "class": of_class,
        }
    )
    whole = concept_percolation(frame, options=ConceptOptions(nulls=5, n_entities=600, n_properties=900))
    parted = concept_percolation(split, columns=columns, options=ConceptOptions(nulls=5))
    assert whole.expected_threshold == pytest.approx((600 * 900) ** 0.5)
    for result in (whole, parted):
        relative = dict(result.thresholds.select("series", "relative").iter_rows())
        assert 0.9 < relative["random pairs"] < 1.3
        assert 0.85 < relative["observed"] < 1.35
    sizes = parted.classes
    n_e, n_k = sizes["n_entities"].to_numpy(), sizes["n_properties"].to_numpy()
    assert parted.expected_threshold == pytest.approx(np.sqrt(n_e * n_k).sum())
    assert parted.expected_threshold == pytest.approx(np.sqrt(n_e.sum() * n_k.sum()), rel=0.01)


def test_a_hub_is_not_what_random_pairs_do():
    """All entities share one property: connected at once, long before the threshold."""
    frame = pl.DataFrame({"entity": np.arange(100), "property": np.zeros(100, dtype=int)})
    result = concept_percolation(frame, options=ConceptOptions(n_properties=1000, nulls=5))
    assert result.relative < 0.5
    assert result.connected == 100
    assert result.curve["giant_entities"][-1] == 1.0
    assert result.curve["theory_entities"][-1] == 0.0
    assert result.thresholds["threshold"][0] < 100


def test_time_decides_the_order_and_rows_without_an_entry_are_left_out():
    day = dt.date(2024, 1, 1)
    frame = pl.DataFrame(
        {
            "who": ["b", "a", None, "a", "b"],
            "what": ["x", "x", "x", "y", "y"],
            "when": [day + dt.timedelta(days=n) for n in (3, 0, 1, 2, 9)],
        }
    )
    columns = PairColumns(entity="who", property="what", time="when")
    pairs = read_pairs(frame, columns)
    assert [
        (pairs.entities[e], pairs.properties[k])
        for e, k in zip(pairs.entity.tolist(), pairs.prop.tolist(), strict=True)
    ] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
        ("b", "y"),
    ]
    assert pairs.n_left_out == 1
    assert np.diff(pairs.time).tolist() == [2 * 86400, 86400, 6 * 86400]
    result = concept_percolation(frame, columns=columns, options=NO_NULLS)
    assert result.inferable_share is None
    assert result.curve.filter(pl.col("pairs") == 3)["connected"][0] == 1.0


def test_files_and_their_refusals(tmp_path):
    frame = pl.DataFrame({"entity": ["a", "b"], "property": ["x", "x"]})
    frame.write_csv(tmp_path / "pairs.csv")
    frame.write_parquet(tmp_path / "pairs.parquet")
    for name in ("pairs.csv", "pairs.parquet"):
        assert read_pairs(tmp_path / name).n_pairs == 2
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(InvalidInputError, match="neither Parquet nor CSV"):
        read_pairs(tmp_path / "broken.parquet")
    with pytest.raises(InvalidInputError, match="no such file"):
        read_pairs(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="unknown entity column 'who'; available: entity, property"):
        read_pairs(frame, PairColumns(entity="who"))
    with pytest.raises(InvalidInputError, match="no row"):
        read_pairs(frame.clear())
    with pytest.raises(InvalidInputError, match="expected numbers or dates"):
        read_pairs(frame, PairColumns(time="entity"))
    twice = pl.DataFrame({"entity": ["a", "a"], "property": ["x", "y"], "class": [1, 2]})
    with pytest.raises(InvalidInputError, match="'a' is in 2 classes"):
        read_pairs(twice, PairColumns(of_class="class"))
    with pytest.raises(UsageError, match="1 entities given, but the pairs name 2"):
        concept_percolation(frame, options=ConceptOptions(n_entities=1))
    classed = frame.with_columns(pl.lit(1).alias("class"))
    with pytest.raises(UsageError, match="leave out the numbers"):
        concept_percolation(
            classed, columns=PairColumns(of_class="class"), options=ConceptOptions(n_entities=9)
        )
    with pytest.raises(UsageError, match="nulls: expected at least 0"):
        ConceptOptions(nulls=-1)
