"""Sweeps: order, parallel workers, checkpoints, estimates."""

import os
import sys
import zipfile

import joblib
import numpy as np
import pytest

from emergraph.analysis.engines.cluster import cluster
from emergraph.analysis.engines.options import Backend
from emergraph.analysis.engines.spread import Parallelism
from emergraph.analysis.landscape.evaluator import FunctionEvaluator
from emergraph.analysis.landscape.layout import Layout
from emergraph.analysis.landscape.modelsurvey import Variant, fastest, measure, variants
from emergraph.analysis.landscape.sweep import (
    LARGEST_LOSS,
    ResumeFile,
    fingerprint,
    run_sweep,
)
from emergraph.analysis.landscape.tasks import (
    LineTask,
    MasksTask,
    PointsTask,
    WalkTask,
    mask_tasks,
    plane_tasks,
)
from emergraph.analysis.landscape.walks import WalkPlan
from emergraph.errors import InvalidInputError, MissingExtraError, UsageError

LAYOUT = Layout.of_shapes([(2, 3)])
BASE = np.arange(6, dtype=np.float32)


def bowl(theta):
    return float(np.sum((theta - BASE) ** 2, dtype=np.float64))


@pytest.fixture
def evaluator():
    return FunctionEvaluator(bowl, BASE, LAYOUT)


def directions(n=2):
    return np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)


def tasks():
    x = np.linspace(-1, 1, 5)
    return [
        *plane_tasks(*directions(), x),
        LineTask(directions()[0], x),
        WalkTask(WalkPlan(length=7, seed=3), 1, np.ones(6, np.float32)),
        PointsTask(np.ones(6, np.float32), 0.1, 5, 2),
        *mask_tasks((np.array([0, 1]), np.array([2])), chunk=3),
    ]


def test_tasks_equal_their_definitions(evaluator):
    found = run_sweep(evaluator, tasks())
    d, x = directions().astype(float), np.linspace(-1, 1, 5)
    plane = np.array([[np.sum((a * d[0] + b * d[1]) ** 2) for b in x] for a in x])
    assert np.array(found[:5]) == pytest.approx(plane, rel=1e-5, abs=1e-6)
    assert found[5] == pytest.approx(x**2 * np.sum(d[0] ** 2), abs=1e-6)
    assert found[6].shape == (7,)
    assert found[7][0] == pytest.approx(found[7][1], rel=1e-4)
    masks = [0, 0 + 1, 4, 5]
    assert np.concatenate(found[8:]) == pytest.approx(masks)


def test_the_centre_of_a_plane_is_the_base_loss_bit_for_bit(evaluator):
    x = np.linspace(-1, 1, 5)
    assert run_sweep(evaluator, plane_tasks(*directions(), x))[2][2] == evaluator.loss(evaluator.base)


def test_rows_of_a_plane_do_not_zig_zag():
    """Another tool's rows alternate by one cell: the lowest cell of each row of a bowl must stay put."""
    flat = FunctionEvaluator(lambda t: float(t[0] ** 2 + t[1] ** 2), np.zeros(2), Layout.of_shapes([(1, 2)]))
    rows, columns = np.eye(2, dtype=np.float32)
    plane = np.array(run_sweep(flat, plane_tasks(rows, columns, np.linspace(-1, 1, 19))))
    assert (plane.argmin(axis=1) == 9).all()


def test_a_walk_moves_only_what_the_scale_lets_move(evaluator):
    seen = []
    spy = FunctionEvaluator(lambda t: seen.append(t.copy()) or 0.0, BASE, LAYOUT)
    scale = np.array([0, 1, 0, 0, 2, 0], np.float32)
    WalkTask(WalkPlan(length=300, sigma=0.5), 0, scale).run(spy)
    moved = np.array(seen) - BASE
    assert not moved[:, [0, 2, 3, 5]].any()
    assert moved[:, [1, 4]].std(axis=0) == pytest.approx([0.5, 1.0], rel=0.3)
    assert evaluator.n_params == 6


@pytest.mark.parametrize("backend", [Backend.THREADING, Backend.PROCESSES])
def test_parallel_workers_give_the_same_numbers_in_the_same_order(evaluator, backend):
    serial = run_sweep(evaluator, tasks())
    spread = run_sweep(evaluator, tasks(), parallelism=Parallelism(backend=backend, n_jobs=2))
    assert all(np.array_equal(a, b) for a, b in zip(serial, spread, strict=True))


def test_a_dask_cluster_of_this_machine_gives_the_same_numbers(evaluator):
    pytest.importorskip("distributed")
    with cluster(Backend.DASK, n_jobs=1):
        spread = run_sweep(evaluator, tasks(), parallelism=Parallelism(backend=Backend.DASK, n_jobs=-1))
    serial = run_sweep(evaluator, tasks())
    assert all(np.array_equal(a, b) for a, b in zip(serial, spread, strict=True))


def test_a_ray_cluster_of_this_machine_gives_the_same_numbers(evaluator, tmp_path):
    pytest.importorskip("ray")
    kept, seen = tmp_path / "kept.npz", []
    with cluster(Backend.RAY, n_jobs=2):
        spread = run_sweep(
            evaluator,
            tasks(),
            parallelism=Parallelism(backend=Backend.RAY, n_jobs=-1),
            checkpoint=kept,
            progress=seen.append,
        )
    serial = run_sweep(evaluator, tasks())
    assert all(np.array_equal(a, b) for a, b in zip(serial, spread, strict=True))
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert not kept.exists()


def test_clusters_that_are_not_there_are_answered(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="expected dask or ray"), cluster(Backend.THREADING):
        pass
    with pytest.raises(MissingExtraError, match="pip install ray"), cluster(Backend.RAY):
        pass


def test_a_backend_that_is_not_there_is_answered_with_what_to_install(evaluator, monkeypatch):
    monkeypatch.delitem(joblib.parallel.BACKENDS, "ray", raising=False)
    with pytest.raises(MissingExtraError, match="ray"):
        run_sweep(evaluator, tasks(), parallelism=Parallelism(backend=Backend.RAY, n_jobs=1))


def test_a_dying_worker_is_one_error(evaluator):
    deadly = FunctionEvaluator(lambda t: os._exit(3), BASE, LAYOUT)
    with pytest.raises(InvalidInputError, match="worker process died"):
        run_sweep(deadly, tasks()[:2], parallelism=Parallelism(backend=Backend.PROCESSES, n_jobs=2))


class Interrupting:
    """Raises after a number of evaluations."""

    def __init__(self, after):
        self.left = after

    def __call__(self, theta):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return bowl(theta)

    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        self.left = 10**9


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path):
    path = tmp_path / "sweep.npz"
    stopped = FunctionEvaluator(Interrupting(12), BASE, LAYOUT)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(stopped, tasks(), checkpoint=path)
    counted = Interrupting(10**9)
    again = FunctionEvaluator(counted, BASE, LAYOUT)
    seen = []
    found = run_sweep(again, tasks(), checkpoint=path, progress=seen.append)
    assert 10**9 - counted.left == sum(t.cost for t in tasks()) - 10
    assert (seen[0].done, seen[-1].done) == (10, seen[-1].total)
    whole = run_sweep(FunctionEvaluator(bowl, BASE, LAYOUT), tasks())
    assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))
    assert not path.exists()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_sweep_or_a_damaged_one_is_refused(tmp_path, evaluator):
    path = tmp_path / "sweep.npz"
    costs = [task.cost for task in tasks()]
    store = ResumeFile(path, fingerprint(evaluator, tasks()), costs)
    store.results[0] = np.zeros(costs[0])
    store.save()
    moved = FunctionEvaluator(bowl, BASE + 1, LAYOUT)
    with pytest.raises(UsageError, match="another model"):
        run_sweep(moved, tasks(), checkpoint=path)
    with pytest.raises(UsageError, match="another model"):
        run_sweep(evaluator, tasks()[1:], checkpoint=path)
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InvalidInputError, match="damaged"):
        run_sweep(evaluator, tasks(), checkpoint=path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"t0": np.zeros(3)}, "array t0 has shape \\[3\\]"),
        ({"t0": np.zeros(())}, "array t0 has shape \\[\\]"),
        ({"t0": np.array(["x"])}, "an array t0 of <U1"),
        ({"t999": np.zeros(5)}, "an array t999 of float64"),
        ({"tx": np.zeros(5)}, "damaged"),
        ({"t0": np.array([None], dtype=object)}, "damaged"),
        ({"digest": None}, "damaged"),
    ],
)
def test_a_checkpoint_with_other_arrays_than_it_had_is_damaged(tmp_path, evaluator, change, said):
    path = tmp_path / "sweep.npz"
    digest = fingerprint(evaluator, tasks())
    arrays = {"digest": np.array(digest), **change}
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    with pytest.raises(InvalidInputError, match=said):
        run_sweep(evaluator, tasks(), checkpoint=path)


def test_a_checkpoint_whose_header_is_no_header_is_damaged(tmp_path, evaluator):
    path = tmp_path / "sweep.npz"
    with zipfile.ZipFile(path, "w") as file:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,"
        file.writestr("digest.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InvalidInputError, match="damaged"):
        run_sweep(evaluator, tasks(), checkpoint=path)


def test_losses_that_are_zero_or_negative_are_not_computed_again(tmp_path):
    """Another tool marks "not computed" by values <= 0, and recomputes them for ever."""
    counted = Interrupting(10**9)
    negative = FunctionEvaluator(lambda t: -counted(t), BASE, LAYOUT)
    run_sweep(negative, tasks(), checkpoint=tmp_path / "s.npz")
    assert 10**9 - counted.left == sum(t.cost for t in tasks())


def test_progress_begins_with_an_estimate(evaluator):
    seen = []
    total = sum(t.cost for t in tasks())
    run_sweep(evaluator, tasks(), rate=10.0, progress=seen.append)
    assert seen[0].seconds_left == pytest.approx(total / 10)
    assert seen[-1].seconds_left == 0
    assert [p.done for p in seen] == sorted(p.done for p in seen)


def test_the_fastest_way_is_chosen_by_measurement(evaluator):
    ways = variants(evaluator)
    choice = fastest(ways, seconds=0.05)
    assert set(choice.rates) == {way.name for way in ways}
    assert choice.rate == max(choice.rates.values())
    assert choice.seconds(tasks()) == pytest.approx(sum(t.cost for t in tasks()) / choice.rate)


def test_rates_are_evaluations_per_second(evaluator):
    ticks = iter(np.arange(0.0, 1000.0, 1.0))
    way = variants(evaluator)[0]
    assert measure(way, seconds=0.5, clock=lambda: float(next(ticks))) == 1.0


def test_opening_workers_is_not_part_of_the_speed(evaluator):
    way = Variant("processes", evaluator, Parallelism(backend=Backend.PROCESSES, n_jobs=2))
    # 100 s to open, 10 s for one evaluation per worker, then 11 s for two: 2 evaluations in 1 s.
    ticks = iter([0.0, 100.0, 100.0, 110.0, 110.0, 121.0])
    assert measure(way, seconds=0.5, clock=lambda: next(ticks)) == 2.0


def test_masks_are_evaluated_in_order(evaluator):
    whole = MasksTask((np.array([1]), np.array([2])), 0, 4).run(evaluator)
    assert whole.tolist() == [0, 1, 4, 5]


def test_a_kept_result_that_is_no_array_is_damage(tmp_path, evaluator):
    kept, digest = tmp_path / "kept.npz", fingerprint(evaluator, tasks())
    np.savez(kept, digest=np.array(digest))
    with zipfile.ZipFile(kept, "a") as file:
        file.writestr("t0", b"no array")  # numpy gives the bytes of a member without a name ending in .npy
    with pytest.raises(InvalidInputError, match="damaged"):
        run_sweep(evaluator, tasks(), checkpoint=kept)


@pytest.mark.parametrize("sign", [1, -1])
def test_losses_that_squares_cannot_hold_count_as_infinite(sign):
    losses = iter([sign * LARGEST_LOSS, sign * LARGEST_LOSS * 1.01, 1.0, float("nan"), 0.0])
    huge = FunctionEvaluator(lambda t: next(losses), BASE, LAYOUT)
    found = run_sweep(huge, [LineTask(directions()[0], np.linspace(-1, 1, 5))])[0]
    expected = [sign * LARGEST_LOSS, sign * np.inf, 1.0, np.nan, 0.0]
    assert np.array_equal(found, expected, equal_nan=True)
