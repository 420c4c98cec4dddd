"""Kinds of relations, decisions and families of nets whose descent is known."""

from dataclasses import replace

import numpy as np
import pytest
from lineagemodels import (
    dense_model,
    matrices,
    renumbered,
    rescaled,
    tuned,
    with_wiring,
    without_units,
)

from emergraph.analysis.comparison import cutting
from emergraph.analysis.comparison.aligned import cut
from emergraph.analysis.comparison.cutting import without_cut_units
from emergraph.analysis.comparison.groups import Groups, Segment, fixed_axis
from emergraph.analysis.comparison.model import balanced, is_rounded
from emergraph.analysis.lineage import lineage, pairs
from emergraph.analysis.lineage.fingerprint import candidates, fingerprint_of, sketch_of
from emergraph.analysis.lineage.kinds import MORE_ZEROS, Kind
from emergraph.analysis.lineage.lineage import families_of, judge
from emergraph.analysis.lineage.pairs import compared, decided

BASE = matrices(0)
CUT = without_units(BASE, (18, 16, 14))


def pruned(weights, share):
    return [np.where(np.abs(one) < np.quantile(np.abs(one), share), 0, one) for one in weights]


def rounded(weights, steps=127):
    sizes = [np.abs(one).max(axis=1, keepdims=True) / steps for one in weights]
    return [np.round(one / size) * size for one, size in zip(weights, sizes, strict=True)]


def judged(*nets, level=1e-6, n_pairs=None):
    models = [one if hasattr(one, "values") else dense_model(one) for one in nets]
    chosen = [(i, j) for j in range(len(models)) for i in range(j)]
    found = [compared(pair, models[pair[0]], models[pair[1]], seed=0) for pair in chosen]
    shapes = [model.architecture for model in models]
    return judge(found, models.__getitem__, shapes, n_pairs=n_pairs or len(found), level=level)


@pytest.mark.parametrize(
    ("other", "kind", "origin"),
    [
        (dense_model(BASE), Kind.RE_ENCODED, ""),
        (dense_model([one.astype(np.float16).astype(float) for one in BASE]), Kind.RE_ENCODED, ""),
        (dense_model(renumbered(BASE)), Kind.RE_ENCODED, ""),
        (dense_model(rescaled(renumbered(BASE))), Kind.RE_ENCODED, ""),
        (dense_model(rounded(BASE)), Kind.QUANTIZED, "a"),
        (dense_model(rounded(BASE, 7)), Kind.QUANTIZED, "a"),
        (dense_model(rounded(renumbered(BASE))), Kind.QUANTIZED, "a"),
        (dense_model(pruned(BASE, 0.3)), Kind.PRUNED, "a"),
        (dense_model(pruned(BASE, 0.7)), Kind.PRUNED, "a"),
        (dense_model(tuned(BASE, 0.02)), Kind.FINE_TUNED, ""),
        (dense_model(tuned(BASE, 1.0)), Kind.FINE_TUNED, ""),
        (dense_model(tuned(renumbered(BASE), 0.1)), Kind.FINE_TUNED, ""),
        (dense_model([BASE[0], *BASE[2:]]), Kind.LAYERS, "a"),
        (dense_model(tuned([BASE[0], *BASE[2:]], 0.1)), Kind.LAYERS, "a"),
        (dense_model(rounded([BASE[0], *BASE[2:]])), Kind.QUANTIZED, "a"),
        (dense_model(pruned([BASE[0], *BASE[2:]], 0.5)), Kind.PRUNED, "a"),
        (dense_model(CUT), Kind.PRUNED, "a"),
        (dense_model(without_units(BASE, (24, 12, 24))), Kind.PRUNED, "a"),
        (dense_model(tuned(CUT, 0.1)), Kind.PRUNED, "a"),
        (dense_model(tuned(CUT, 0.5)), Kind.PRUNED, "a"),
        (dense_model(rescaled(CUT)), Kind.PRUNED, "a"),
        (dense_model(renumbered(CUT)), Kind.PRUNED, "a"),
        (dense_model(rounded(CUT)), Kind.QUANTIZED, "a"),
        (dense_model(pruned(CUT, 0.3)), Kind.PRUNED, "a"),
        (dense_model(matrices(1)), Kind.INDEPENDENT, ""),
        (dense_model(matrices(1, (20, 18, 16, 14, 8))), Kind.INDEPENDENT, ""),
        (dense_model(matrices(1, (20, 40, 40, 8))), Kind.INDEPENDENT, ""),
    ],
)
def test_kinds(other, kind, origin):
    (found,) = judged(BASE, other)
    assert (found.judged.kind, found.judged.origin) == (kind, origin), found.judged.evidence
    assert found.related == (kind is not Kind.INDEPENDENT)
    (turned,) = judged(other, BASE)
    assert turned.judged.kind is kind
    assert turned.judged.origin == {"a": "b", "": ""}[origin]


def test_which_units_were_cut_out_is_said():
    (found,) = judged(BASE, CUT)
    assert found.by == "exact test"
    assert "24 of 72 hidden units, in 3 of 3 groups, are cut out" in found.judged.evidence
    assert found.alike.equal
    (found,) = judged(rounded(CUT), BASE)
    assert "are cut out" in found.judged.evidence


@pytest.mark.parametrize(
    "other",
    [
        dense_model(CUT, wiring="none"),
        dense_model([np.vstack([CUT[0]] * 2), *CUT[1:-1], CUT[-1]][:2]),
        dense_model(matrices(0, (20, 18, 16, 14, 5))),
        dense_model(matrices(0, (20, 30, 16, 14, 8))),
    ],
)
def test_no_units_are_sought_where_none_can_have_been_cut_out(other):
    """Wiring that is not known, other layers, other outputs, and layers that are larger."""
    assert without_cut_units(dense_model(BASE), other, seed=0) is None
    assert without_cut_units(dense_model(BASE), dense_model(BASE), seed=0) is None


def test_choosing_units_for_their_likeness_makes_no_relation():
    """The exact test holds for units that were chosen, and likeness says nothing about them."""
    large = [matrices(seed, (12, 24, 24, 4)) for seed in range(40)]
    small = [matrices(100 + seed, (12, 12, 11, 4)) for seed in range(40)]
    found = [judged(a, b)[0] for a, b in zip(large, small, strict=True)]
    assert not any(one.related for one in found)
    p = np.array([one.p for one in found])
    assert (p <= 0.05).sum() <= 6
    assert (p <= 0.5).sum() <= 28
    few = [judged(matrices(seed, (2, 6, 2)), matrices(100 + seed, (2, 3, 2)))[0] for seed in range(20)]
    assert max(one.alike.cosine for one in few) > pairs.ALIKE
    assert not any(one.related for one in few)


def test_models_of_which_units_were_cut_out_are_candidates():
    models = [dense_model(one) for one in (BASE, CUT, matrices(1, (20, 30, 8)), matrices(2))]
    found = candidates([fingerprint_of(model) for model in models])
    assert {(0, 1), (1, 3), (0, 3)} <= found
    assert not any(2 in pair for pair in found)
    blind = [fingerprint_of(with_wiring(model, "none")) for model in models[:2]]
    assert candidates(blind) == set()


def test_one_file_twice_is_the_same():
    (found,) = judged(dense_model(BASE, sha256="x"), dense_model(BASE, sha256="x"))
    assert (found.judged.kind, found.by) == (Kind.SAME, "equal numbers")


def test_an_average_needs_both_of_its_parents():
    much = tuned(BASE, 0.5, seed=3)
    middle = [0.5 * (one + other) for one, other in zip(BASE, much, strict=True)]
    kinds = {(one.a, one.b): one.judged for one in judged(BASE, much, middle)}
    assert [kinds[pair].kind for pair in ((0, 1), (0, 2), (1, 2))] == [
        Kind.FINE_TUNED,
        Kind.AVERAGED,
        Kind.AVERAGED,
    ]
    assert [kinds[pair].origin for pair in ((0, 2), (1, 2))] == ["a", "a"]
    assert {one.judged.kind for one in judged(BASE, middle)} == {Kind.FINE_TUNED}
    assert {one.judged.kind for one in judged(BASE, much, tuned(BASE, 0.5, seed=4))} == {Kind.FINE_TUNED}


@pytest.mark.parametrize(("above", "kind"), [(1, Kind.PRUNED), (-1, Kind.FINE_TUNED)])
def test_zeros_that_make_a_pruned_net(above, kind):
    share = MORE_ZEROS + above * 0.01
    (found,) = judged(BASE, tuned(BASE, 0.01) if share < 0 else pruned(BASE, share))
    assert found.judged.kind is kind


def test_rounding_is_seen_in_many_forms_and_not_in_floats():
    fine = BASE[1]
    assert not is_rounded(fine)
    assert not is_rounded(fine.astype(np.float16).astype(float))
    assert not is_rounded(np.where(np.abs(fine) < np.quantile(np.abs(fine), 0.9), 0, fine))
    span = np.ptp(fine) / 255
    assert is_rounded(np.round((fine - fine.min()) / span) * span + fine.min())
    assert is_rounded(np.sign(fine))
    assert is_rounded(rounded([fine], 31)[0].astype(np.float32).astype(float))


@pytest.mark.parametrize(("level", "says"), [(1e-5, "decided"), (1e-8, "undecidable")])
def test_too_few_units_for_the_level_are_undecidable(level, says):
    """Ten units of one layer: at best 1 / 10! = 2.8e-7."""
    few = matrices(0, (20, 10, 8))
    (found,) = judged(few, tuned(few, 0.1), level=level)
    assert found.test_says == says
    assert found.related
    assert found.by == ("exact test" if says == "decided" else "likeness")
    (other,) = judged(few, matrices(1, (20, 10, 8)), level=level)
    assert other.judged.kind is (Kind.INDEPENDENT if says == "decided" else Kind.UNDECIDED)
    assert not other.related


def test_p_values_are_corrected_over_all_pairs():
    few = matrices(0, (20, 10, 8))
    one, many = (judged(few, tuned(few, 0.1), level=1e-5, n_pairs=n)[0] for n in (1, 1000))
    assert many.p_corrected == pytest.approx(1000 * one.p_corrected)
    assert one.by == "exact test"
    assert many.test_says == "undecidable"


@pytest.mark.parametrize(
    ("cosine", "matched", "score", "by"),
    [
        (pairs.ALIKE + 0.01, 0.6, 0.0, "likeness"),
        (pairs.ALIKE - 0.01, 0.6, 0.0, ""),
        (0.0, pairs.RENUMBERED + 0.01, 0.0, "match score"),
        (0.0, pairs.RENUMBERED - 0.01, 0.0, ""),
        (0.0, pairs.MATCHED + 0.01, pairs.AGREES + 0.01, "match score"),
        (0.0, pairs.MATCHED + 0.01, pairs.AGREES - 0.01, ""),
        (0.0, pairs.MATCHED - 0.01, pairs.AGREES + 0.01, ""),
    ],
)
def test_what_decides_where_no_test_can(cosine, matched, score, by):
    """Files that do not say how they are wired have no test."""
    blind = with_wiring(dense_model(BASE), "none")
    found = compared((0, 1), blind, with_wiring(dense_model(matrices(1)), "none"), seed=0)
    alike = replace(found.alike, cosine=cosine, matched=matched)
    decision = decided(replace(found, alike=alike, score=score), n_pairs=1, level=1e-6)
    assert (decision.by, decision.test_says) == (by, "refused")


@pytest.mark.parametrize(("noise", "sought"), [(0.4, False), (0.6, True)])
def test_another_numbering_is_sought_where_the_stored_one_does_not_fit(noise, sought):
    (found,) = judged(BASE, tuned(BASE, noise))
    assert (found.alike.cosine < pairs.SETTLED) == sought == (found.score is not None)


@pytest.mark.parametrize(("share", "compare"), [(0.4, False), (0.6, True)])
def test_half_of_the_weights_need_a_counterpart(share, compare):
    kept = int(share * 10)
    sizes = [(30, 10)] * 10
    ours = [np.random.default_rng(i).standard_normal(size) for i, size in enumerate(sizes)]
    theirs = ours[:kept] + [np.random.default_rng(50 + i).standard_normal((25, 12)) for i in range(10 - kept)]
    found = compared((0, 1), dense_model(ours, wiring="none"), dense_model(theirs, wiring="none"), seed=0)
    assert (found.alike is not None) == compare


def test_a_match_p_value_needs_enough_independent_pairs(monkeypatch):
    nets = [matrices(i, (6, 12, 12, 4)) for i in range(9)]
    nets.append(tuned(renumbered(nets[0]), 0.1))
    monkeypatch.setattr(lineage, "ENOUGH", 44)
    found = {(one.a, one.b): one for one in judged(*nets)}
    assert found[0, 9].match_p == pytest.approx(1 / 45)
    assert np.mean([one.match_p for one in found.values()]) == pytest.approx(0.5, abs=0.05)
    monkeypatch.setattr(lineage, "ENOUGH", 45)
    assert {one.match_p for one in judged(*nets)} == {None}


def test_families_and_their_roots():
    nets = [matrices(1), rounded(BASE), BASE, pruned(BASE, 0.5), renumbered(pruned(BASE, 0.7)), matrices(2)]
    found = judged(*nets)
    (family,) = families_of(found)
    assert family.members == (1, 2, 3, 4)
    assert family.root == 2
    assert set(family.parents) == {1, 3, 4}
    inside = {(one.a, one.b): one for one in found if {one.a, one.b} <= {1, 2, 3, 4}}
    assert all(one.related for one in inside.values())


@pytest.mark.parametrize(("noise", "found"), [(0.1, True), (4.0, False)])
def test_gates_in_another_order_are_put_right_where_that_is_clear(noise, found):
    rng = np.random.default_rng(0)
    ours = rng.standard_normal((4, 12, 6))
    theirs = ours[[0, 2, 3, 1]] + noise * rng.standard_normal(ours.shape)
    places = np.arange(48).reshape(4, 12).T
    axes = ((Segment(group="g0", places=places),), fixed_axis(6))
    groups = Groups(axes={"layer0": axes}, sizes={"g0": 12}, wiring="traced")
    (weight,) = dense_model([ours.reshape(48, 6)]).weights
    (link,) = cut(groups, weight, ours.reshape(48, 6), theirs.reshape(48, 6))
    cosine = np.sum(link.a * link.b) / np.linalg.norm(link.a) / np.linalg.norm(link.b)
    assert (cosine > 0.9) == found


# Fingerprints.


def prints(*nets):
    return [fingerprint_of(dense_model(one)) for one in nets]


@pytest.mark.parametrize(
    "change", [renumbered, rescaled, lambda w: [one.astype(np.float16).astype(float) for one in w]]
)
def test_a_fingerprint_stays_the_same(change):
    ours, theirs, other = prints(BASE, change(BASE), matrices(1))
    apart = [
        np.abs(np.concatenate([x[1] - y[1] for x, y in zip(ours.sketches, one.sketches, strict=True)])).max()
        for one in (theirs, other)
    ]
    assert apart[0] < 0.01 < apart[1]
    assert ours.n_bytes < 2000


def test_a_sketch_of_a_large_matrix_is_that_of_a_small_one(monkeypatch):
    weights = np.random.default_rng(0).standard_normal((40, 50, 1))
    exact = sketch_of(weights)
    monkeypatch.setattr("emergraph.analysis.lineage.fingerprint.LARGEST_SIDE", 30)
    assert sketch_of(weights) == pytest.approx(exact, abs=1e-4)


def test_relatives_are_among_the_candidates_and_not_everyone():
    rng = np.random.default_rng(0)
    bases = [matrices(i, (8, 16, 16, 4)) for i in range(60)]
    changes = [renumbered, rescaled, lambda w: tuned(w, 0.05), rounded]
    children = [changes[i % 4](one) for i, one in enumerate(bases)]
    order = rng.permutation(120)
    models = [*bases, *children]
    found = candidates(prints(*(models[i] for i in order)), neighbours=5)
    place = np.argsort(order)
    wanted = {tuple(sorted((int(place[i]), int(place[60 + i])))) for i in range(60)}
    assert len(wanted & found) >= 58
    assert len(found) < 0.2 * 120 * 119 / 2
    assert found == candidates(prints(*(models[i] for i in order)), neighbours=5)


def test_models_of_other_sizes_are_no_candidates():
    assert candidates(prints(BASE, matrices(0, (7, 9, 5)))) == set()
    assert candidates(prints(BASE)) == set()


def test_balanced_weights_have_units_of_one_size():
    found = balanced(np.random.default_rng(0).lognormal(size=(7, 5, 3)))
    for axis in (0, 1):
        sizes = (found**2).sum(axis=2).mean(axis=axis)
        assert sizes == pytest.approx(np.ones(sizes.size), abs=0.02)
    holed = balanced(np.array([[[0.0], [0.0]], [[1.0], [2.0]]]))
    assert np.all(np.isfinite(holed))


def stream(weights):
    """A residual net: a stream of units, and blocks that lead out of it and back into it."""
    blocks = (len(weights) - 2) // 2
    return dense_model(weights, joints=[*(name for i in range(blocks) for name in ("s", f"inner{i}")), "s"])


RESIDUAL = matrices(5, (20, 24, 28, 24, 28, 24, 28, 24, 8))


def without_block(weights, block, kept):
    """The same net without a block, and with so many inner units in each of the others."""
    found = list(weights)
    for up in range(1, len(weights) - 1, 2):
        chosen = np.sort(np.argsort(-np.linalg.norm(weights[up], axis=1))[:kept])
        found[up], found[up + 1] = weights[up][chosen], weights[up + 1][:, chosen]
    return found[: 2 * block + 1] + found[2 * block + 3 :]


@pytest.mark.parametrize("block", [0, 1, 2])
def test_units_and_a_layer_cut_out_of_one_model_are_found(block):
    smaller = without_block(RESIDUAL, block, 20)
    (found,) = judged(stream(RESIDUAL), stream(smaller))
    assert (found.related, found.judged.kind, found.judged.origin) == (True, Kind.PRUNED, "a")
    assert "in 2 of 3 groups, are cut out, and 2 matrices" in found.judged.evidence
    (apart,) = judged(stream(matrices(6, (20, 24, 28, 24, 28, 24, 28, 24, 8))), stream(smaller))
    assert not apart.related


def test_layers_are_sought_in_a_row_and_where_the_rest_is_wired_alike(monkeypatch):
    large, small = stream(RESIDUAL), stream(without_block(RESIDUAL, 1, 20))
    assert without_cut_units(large, small, seed=0) is not None
    assert without_cut_units(small, large, seed=0) is None
    dense = dense_model(
        matrices(5, (20, 24, 28, 24, 28, 24, 8))
    )  # without a stream nothing joins what is left
    assert (
        without_cut_units(
            dense, dense_model(without_block(matrices(5, (20, 24, 28, 24, 28, 24, 8)), 1, 20)), seed=0
        )
        is None
    )
    monkeypatch.setattr(cutting, "WAYS", 2)
    assert without_cut_units(large, small, seed=0) is None
    monkeypatch.setattr(cutting, "WAYS", 3)
    assert without_cut_units(large, small, seed=0) is not None
