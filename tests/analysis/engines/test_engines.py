"""The one switch: the same answers from threads, processes and clusters, and a worker that dies is said."""

import os
import time

import pytest

from emergraph.analysis.engines.cluster import connected
from emergraph.analysis.engines.options import Backend, EngineOptions
from emergraph.analysis.engines.spread import Parallelism, WorkerDiedError, spread, workers
from emergraph.errors import UsageError


def square(number, pause):
    time.sleep(pause)
    return number * number, os.getpid()


def die(number):
    if number == 2:
        os.kill(os.getpid(), 9)
    return number


@pytest.mark.parametrize("backend", [Backend.SERIAL, Backend.LOCAL, Backend.THREADING, Backend.PROCESSES])
def test_answers_do_not_depend_on_where(backend):
    plan = Parallelism(backend=backend, n_jobs=2)
    found = list(spread(square, ((k, 0.0) for k in range(6)), plan))
    assert sorted(value for value, _ in found) == [k * k for k in range(6)]
    assert (os.getpid() in {pid for _, pid in found}) == (backend is not Backend.PROCESSES)


def test_what_is_done_first_comes_first():
    plan = Parallelism(backend=Backend.THREADING, n_jobs=2)
    assert [value for value, _ in spread(square, [(2, 0.4), (3, 0.0)], plan)] == [9, 4]


def test_a_cluster_of_processes():
    pytest.importorskip("distributed")
    with connected(EngineOptions(backend=Backend.DASK, jobs=2), processes=True):
        plan = Parallelism(backend=Backend.DASK, n_jobs=-1)
        assert workers(plan) == 2
        found = list(spread(square, ((k, 0.0) for k in range(4)), plan))
    assert sorted(value for value, _ in found) == [0, 1, 4, 9]
    assert os.getpid() not in {pid for _, pid in found}


def test_a_worker_that_is_killed_is_said():
    with pytest.raises(WorkerDiedError):
        list(spread(die, ((k,) for k in range(4)), Parallelism(backend=Backend.PROCESSES, n_jobs=2)))


def test_a_cluster_without_an_engine_is_refused():
    with pytest.raises(UsageError, match="--backend dask or ray"):
        EngineOptions(cluster="tcp://host:1")
    assert EngineOptions(cluster="tcp://host:1", backend=Backend.DASK).backend.is_cluster
