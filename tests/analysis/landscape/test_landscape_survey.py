"""The whole survey: on known functions, into a store, groups, budgets, descents."""

import json
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from emergraph.analysis.engines.options import Backend
from emergraph.analysis.engines.spread import Parallelism
from emergraph.analysis.landscape.descents import lbfgs_descent, scaled_kick
from emergraph.analysis.landscape.evaluator import FunctionEvaluator
from emergraph.analysis.landscape.layout import Layout
from emergraph.analysis.landscape.lon import summarise_lon
from emergraph.analysis.landscape.optima import position_key, sample_lon
from emergraph.analysis.landscape.options import Norm, SurveyOptions, fit_to_budget
from emergraph.analysis.landscape.saving import save_survey, survey_frames
from emergraph.analysis.landscape.survey import filter_groups, layer_groups, run_survey
from emergraph.errors import InvalidInputError, UsageError
from emergraph.graphstore.store import open_store

LAYOUT = Layout.of_shapes([(8, 6), (8,), (4, 8)], ["first", "bias", "second"])
BASE = np.random.default_rng(0).normal(size=LAYOUT.n_params).astype(np.float32)
SMALL = SurveyOptions(
    directions=10, slice_points=11, planes=2, plane_points=11, walk_length=120, distances=10, masks=2
)


def bowl(theta):
    return float(np.sum((theta.astype(np.float64) - BASE) ** 2))


def waves(theta):
    return float(np.sum(np.cos(40 * (theta.astype(np.float64) - BASE))))


@pytest.fixture(scope="module")
def survey():
    return run_survey(FunctionEvaluator(bowl, BASE, LAYOUT, loss_name="bowl"), SMALL, notes=("a note",))


def test_a_bowl_looks_like_a_bowl_in_every_statistic(survey):
    found = survey.estimates()
    assert found["convexity"].mean == 1.0
    assert found["plane_n_minima"].mean == 1.0
    assert found["plane_smad_normalised"].mean == 0.0
    assert found["plane_convex_share"].mean == 1.0
    assert found["asymmetry"].mean == pytest.approx(0, abs=1e-5)
    assert found["excess_ruggedness"].low <= 0 <= found["excess_ruggedness"].high
    assert found["fdc_spearman"].mean > 0.95
    assert found["rho_1"].null == pytest.approx(0.81)
    assert survey.base_loss == 0.0


def test_known_values_of_a_bowl(survey):
    weights = BASE[LAYOUT.blocks[0].span], BASE[LAYOUT.blocks[2].span]
    squares = sum(float(np.sum(w.astype(float) ** 2)) for w in weights)
    assert survey.slices.rise.mean == pytest.approx(squares, rel=1e-4)
    assert survey.slices.rise.sd == pytest.approx(0, abs=1e-3)
    assert survey.average_sharpness.low <= 0.1**2 * squares <= survey.average_sharpness.high
    assert [layer.tensor for layer in survey.layers] == ["first", "second"]
    assert survey.layers[1].rise.mean == pytest.approx(float(np.sum(weights[1].astype(float) ** 2)), rel=1e-4)
    assert survey.masks is not None
    assert survey.masks.losses[3] == pytest.approx(squares, rel=1e-5)
    assert survey.n_params == 80


def test_waves_are_rugged():
    found = run_survey(FunctionEvaluator(waves, BASE, LAYOUT), replace(SMALL, masks=0)).estimates()
    assert found["excess_ruggedness"].mean > 0.5
    assert found["convexity"].mean < 0.9
    assert found["plane_n_minima"].mean > 1


def test_equal_seeds_give_equal_surveys_however_they_are_spread(survey):
    again = run_survey(
        FunctionEvaluator(bowl, BASE, LAYOUT, loss_name="bowl"),
        SMALL,
        parallelism=Parallelism(backend=Backend.THREADING, n_jobs=2),
        notes=("a note",),
    )
    assert again.to_dict() == survey.to_dict()
    other = run_survey(FunctionEvaluator(bowl, BASE, LAYOUT), replace(SMALL, seed=1))
    assert other.walk_losses[0, 1] != survey.walk_losses[0, 1]


def test_losses_that_overflow_are_counted_and_left_out():
    def cliff(theta):
        return bowl(theta) if bowl(theta) < 30 else float("inf")

    found = run_survey(FunctionEvaluator(cliff, BASE, LAYOUT), replace(SMALL, masks=0))
    assert any("not finite" in note for note in found.notes)
    assert found.slices.nonfinite > 0
    json.dumps(found.to_dict())


def test_a_flat_landscape_has_no_correlation_and_no_crash():
    found = run_survey(FunctionEvaluator(lambda t: 1.0, BASE, LAYOUT), SMALL)
    assert np.isnan(found.autocorrelation.rho_1.mean)
    assert found.neutrality.neutral_share.mean == 1.0
    assert found.masks is not None
    assert found.masks.lon.n_funnels == 1
    assert survey_frames(found)["landscape"].filter(statistic="rho_1")["mean"].to_list() == [None]


def test_rows_of_the_store_are_the_survey(tmp_path, survey):
    path = tmp_path / "s.duckdb"
    with open_store(path, mode="create") as store:
        run = save_survey(store, survey, graph=None, duration=1.5, model="bowl")
    with open_store(path) as store:
        table = store.results("landscape", run)
        rise = table.filter(statistic="rise").row(0, named=True)
        assert (rise["mean"], rise["n"], rise["loss"]) == (survey.slices.rise.mean, 10, "bowl")
        points = store.results("landscape_points", run)
        assert points.filter(kind="plane", number=1).height == 121
        assert points.filter(kind="walk").height == 1200
        centre = points.filter(kind="plane", number=0, x=0.0, y=0.0)
        assert centre["loss"].to_list() == [0.0]
        assert store.results("landscape_layers", run)["tensor"].to_list() == ["first", "second"]
        trees = store.results("landscape_trees", run)
        assert trees.filter(kind="minimum").height == 2
        assert store.results("landscape_masks", run)["n_removed"].to_list() == [0, 1, 1, 2]
        groups = store.results("landscape_groups", run)
        assert groups.filter(group_a=0, group_b=1)["effect"].to_list() == pytest.approx([0], abs=1e-4)
        parameters = json.loads(store.runs("landscape")["parameters"][0])
    assert parameters["norm"] == "filter"
    assert parameters["model"] == "bowl"
    assert parameters["notes"] == ["a note"]
    with duckdb.connect(path, read_only=True) as connection:
        comments = connection.execute(
            "SELECT count(*) FROM duckdb_columns() WHERE table_name LIKE 'landscape%' AND comment IS NULL"
        ).fetchone()
    assert comments == (0,)


def test_layer_groups_cover_all_weights_once_and_are_balanced():
    layout = Layout.of_shapes([(2, 10), (2,), (30, 2), (2, 5), (4, 10), (3, 7)], list("abcdef"))
    for m in range(1, 8):
        groups = layer_groups(layout, m=m)
        together = np.concatenate(list(groups.values()))
        assert len(groups) == min(m, 5)
        assert np.array_equal(np.sort(together), np.delete(np.arange(layout.n_params), [20, 21]))
    assert list(layer_groups(layout, m=2)) == ["a .. c", "d .. f"]
    with pytest.raises(UsageError, match="14"):
        layer_groups(layout, m=15)


def test_filter_groups_cut_along_the_filters():
    groups = filter_groups(LAYOUT, "second", m=3)
    assert [len(g) for g in groups.values()] == [16, 8, 8]
    assert np.concatenate(list(groups.values())).tolist() == list(range(56, 88))
    assert len(filter_groups(LAYOUT, "second", m=14)) == 4
    with pytest.raises(UsageError, match="'x'"):
        filter_groups(LAYOUT, "x")


def test_a_budget_cuts_sizes_but_never_directions_or_walks():
    options = SurveyOptions()
    for seconds in (60.0, 5.0, 0.5):
        fitted, notes = fit_to_budget(options, n_tensors=20, rate=1000, seconds=seconds)
        assert (fitted.directions, fitted.walks) == (10, 10)
        assert bool(notes) == (fitted != options)
        if seconds > 0.5:
            assert fitted.cost(20) <= 1000 * seconds
    assert len(notes) == 1
    assert notes[0].startswith("reduced to stay near 0.5 s: ")
    assert "planes from 10 to 0" in notes[0]
    assert fit_to_budget(options, n_tensors=20, rate=1e9, seconds=1)[0] == options


def test_costs_are_the_evaluations_made(survey):
    calls = []
    run_survey(FunctionEvaluator(lambda t: calls.append(0) or bowl(t), BASE, LAYOUT), SMALL)
    assert len(calls) == SMALL.cost(2)
    assert survey.options.norm is Norm.FILTER


@pytest.mark.parametrize("field", [{"slice_points": 10}, {"directions": 1}, {"radius": 0.0}, {"pairs": 0}])
def test_wrong_sizes_are_refused(field):
    with pytest.raises(UsageError):
        SurveyOptions(**field)


def test_descents_from_kicks_find_the_wells_of_a_double_well():
    class Wells(FunctionEvaluator):
        def gradient(self, theta):
            return 4 * theta.astype(float) * (theta.astype(float) ** 2 - 1)

    wells = Wells(
        lambda t: float(np.sum((t.astype(float) ** 2 - 1) ** 2)), np.ones(1), Layout.of_shapes([(1, 1)])
    )
    found = sample_lon(
        [np.array([0.9]), np.array([-0.5])],
        lbfgs_descent(wells),
        scaled_kick(np.ones(1), sigma=1.5),
        position_key(0.05),
        patience=30,
    )
    assert np.sort(found.positions.ravel()) == pytest.approx([-1, 1], abs=1e-2)
    summary = summarise_lon(found.graph, precision=1e-6)
    assert (summary.n_optima, summary.n_funnels) == (2, 1)


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_a_loss_at_the_models_own_weights_that_is_not_finite_is_refused(wrong):
    def broken(theta):
        return wrong if np.array_equal(theta, BASE) else bowl(theta)

    with pytest.raises(InvalidInputError, match="own weights is"):
        run_survey(FunctionEvaluator(broken, BASE, LAYOUT), SMALL)


def test_losses_beyond_all_bounds_in_both_directions_are_left_out_without_a_warning():
    def steep(theta):
        moved = float((theta.astype(np.float64) - BASE).sum())
        return 0.0 if moved == 0 else float(np.copysign(np.inf, moved))

    options = replace(SMALL, layer_directions=3, layer_walks=1, balls=3, masks=0)
    found = run_survey(FunctionEvaluator(steep, BASE, LAYOUT), options)
    assert found.base_loss == 0
    assert found.average_sharpness.n == 0
    assert any("are not finite" in note for note in found.notes)
