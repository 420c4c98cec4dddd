"""Surveys: every model is one row, nothing is looked at twice, and it does not matter where."""

import json
import os
import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from inplacemodels import dense_onnx, sparse_weights, write_safetensors
from joblib.externals.loky import get_reusable_executor
from lockedsql import ask
from populations import population, tiny_weights
from storegraphs import random_chain, write_chain

from emergraph.analysis.engines.options import Backend, EngineOptions
from emergraph.analysis.engines.spread import WorkerDiedError
from emergraph.analysis.survey import onefile
from emergraph.analysis.survey import survey as module
from emergraph.analysis.survey.fingerprints import fingerprints
from emergraph.analysis.survey.options import PopulationOptions
from emergraph.analysis.survey.search import find_models
from emergraph.analysis.survey.summary import copies_of_weights, finding, outliers, survey_page
from emergraph.analysis.survey.survey import MODELS, TIMES, read_tables, survey, write_found
from emergraph.cli.main import main
from emergraph.errors import InvalidInputError, LimitError, UsageError
from emergraph.exporters import filetensors
from emergraph.graphstore.store import open_store

N = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return population(tmp_path_factory.mktemp("survey") / "models", N)


@pytest.fixture
def here(monkeypatch):
    """Look at no file, which takes most of the time; returns the names of those that would have been."""
    looked = []

    def call(function, look, **rest):
        looked.append(Path(look.path).name)
        return {"row": {"status": "done", "n_errors": 0, "n_warnings": 0}, "findings": []}

    monkeypatch.setattr(module, "call_offline", call)
    return looked


def rows(result):
    """What must not depend on where and when."""
    return sorted(map(repr, result.models.drop(TIMES).rows())), sorted(map(repr, result.findings.rows()))


@pytest.fixture(scope="module")
def surveyed(folder, tmp_path_factory):
    """A survey whose children are real."""
    return survey(folder, tmp_path_factory.mktemp("lake") / "lake")


def test_every_model_is_a_row_with_its_state(surveyed):
    found = dict(surveyed.models.select("name", "status").iter_rows())
    assert found == {
        "copy.bin": "done",
        "net1.safetensors": "done",
        "net2.safetensors": "done",
        "damaged.onnx": "failed",
        "code.pkl": "refused",
        "keras.h5": "unsupported",
    }
    assert surveyed.paths.height == N
    assert surveyed.others == {"text": 1}
    failed = surveyed.models.filter(pl.col("status") != "done")
    assert failed["reason"].null_count() == 0
    assert sorted(failed["code"]) == [3, 3, 4]
    done = surveyed.models.filter(pl.col("status") == "done")
    assert (done["n_parameters"] == done["n_parameters_understood"]).all() or done["n_parameters"].min() > 0
    assert done["weights"].n_unique() == 3
    assert done["sketch"].list.len().min() > 0
    assert (done["sketch_sizes"].list.len() % 3 == 0).all()


def test_the_lake_answers_in_sql(surveyed):
    assert ask(surveyed.lake, "SELECT count(*) FROM models").rows() == [(N - 1,)]
    sql = "SELECT count(*) FROM paths AS p JOIN models AS m USING (file)"
    assert ask(surveyed.lake, sql).rows() == [(N,)]
    sql = "SELECT count(*) FROM graphs AS g JOIN models AS m ON m.graph = g.key"
    assert ask(surveyed.lake, sql).rows() == [(3,)]
    assert ask(surveyed.lake, "SELECT count(*) FROM findings WHERE finding IS NULL").rows() == [(0,)]


def test_the_first_line_and_the_page(surveyed):
    said = finding(surveyed)
    assert said.startswith("7 model files, 3 of 6 different ones read; 1 refused as unsafe, 1 failed")
    assert "1 copies" in said
    assert "status = 'refused'" in said
    page = survey_page(surveyed, "models")
    assert [section.id for section in page.sections][:2] == ["summary", "problems"]
    assert "duplicates" in [section.id for section in page.sections]


def test_it_does_not_matter_where(surveyed, folder, tmp_path, monkeypatch):
    """Threads that wait for children, and everything in this process."""
    monkeypatch.setattr(module, "call_offline", lambda function, look, **_: function(look))
    engine, chosen = EngineOptions(backend=Backend.SERIAL), PopulationOptions(analyses=("topology",))
    found = survey(folder, tmp_path / "lake", chosen, engine)
    models = surveyed.models.with_columns(settings=pl.lit(found.models["settings"][0]))
    assert rows(found) == rows(replace(surveyed, models=models))
    commands = ask(tmp_path / "lake", "SELECT command, count(*) AS n FROM runs GROUP BY command").rows()
    assert commands == [("topology", 3)]


def test_analyses_that_no_graph_has(folder, tmp_path):
    with pytest.raises(UsageError, match="not about a graph"):
        survey(folder, tmp_path / "lake", PopulationOptions(analyses=("landscape",)))


def test_a_later_run_looks_at_what_is_new(folder, tmp_path, here):
    models, lake = tmp_path / "models", tmp_path / "lake"
    shutil.copytree(folder, models)
    first = survey(models, lake)
    again = survey(models, lake)
    assert again.looked_at == 0
    assert rows(again) == rows(first)
    here.clear()
    tiny_weights(models / "net1.safetensors", 50)
    tiny_weights(models / "new.safetensors", 51)
    (models / "net2.safetensors").unlink()
    third = survey(models, lake)
    assert sorted(here) == ["net1.safetensors", "new.safetensors"]
    assert third.paths.height == N
    here.clear()
    survey(models, lake, PopulationOptions(seed=1))
    assert len(here) == N - 2


def test_limits_are_tried_again_unless_resumed(folder, tmp_path, monkeypatch, here):
    def limited(*_, **__):
        raise LimitError("too much")

    with monkeypatch.context() as patch:
        patch.setattr(module, "call_offline", limited)
        first = survey(folder, tmp_path / "lake")
    assert set(first.models["status"]) == {"limit", "unsupported"}
    assert "--file-time" in finding(first)
    assert survey(folder, tmp_path / "lake", PopulationOptions(resume=True)).looked_at == 0
    assert survey(folder, tmp_path / "lake").looked_at == N - 2
    assert here


def test_a_file_whose_child_somebody_kills_is_looked_at_again(folder, tmp_path, monkeypatch):
    tries = []

    def dying(function, look, **_):
        tries.append(look.path)
        if tries.count(look.path) == 1:
            raise InvalidInputError("looking at the file crashed (SIGKILL); nothing was changed")
        return {"row": {"status": "done"}, "findings": []}

    monkeypatch.setattr(module, "call_offline", dying)
    found = survey(folder, tmp_path / "lake", engine=EngineOptions(jobs=1))
    assert found.models.filter(pl.col("status") == "done").height == N - 2
    assert len(tries) == 2 * (N - 2)


def test_a_worker_that_dies_in_the_middle_costs_the_files_it_looked_at(folder, tmp_path, monkeypatch):
    """What others have written stays, and all of the rest is given out again, to other workers."""
    rounds, looked = [], []

    def look(function, look, **_):
        looked.append(Path(look.path).name)
        return {"row": {"status": "done"}, "findings": []}

    def dying(function, calls, plan):
        rounds.append(len(calls))
        for place, call in enumerate(calls):
            if function is module.survey_one and place == len(rounds) - 2 and len(rounds) < 4:
                raise WorkerDiedError("killed")
            yield function(*call)

    monkeypatch.setattr(module, "call_offline", look)
    monkeypatch.setattr(module, "spread", dying)
    found = survey(folder, tmp_path / "lake")
    assert rounds == [
        N,
        N - 1,
        N - 1,
        N - 2,
    ]  # checksums; a death before the first and after it
    assert found.models.height == found.models["file"].n_unique() == N - 1
    assert sorted(looked) == sorted(set(looked))
    monkeypatch.setattr(module, "_ROUNDS", 0)
    with pytest.raises(LimitError, match="fewer jobs"):
        survey(folder, tmp_path / "other")


def test_a_worker_process_that_is_killed_loses_and_doubles_nothing(folder, tmp_path, surveyed, monkeypatch):
    monkeypatch.setattr(module, "survey_one", killed_once)
    monkeypatch.setenv("KILLED_ONCE", str(tmp_path / "killed"))
    get_reusable_executor().shutdown(wait=True)  # workers of an earlier test have its environment
    found = survey(folder, tmp_path / "lake", engine=EngineOptions(backend=Backend.PROCESSES, jobs=2))
    assert (tmp_path / "killed").exists()
    assert sorted(found.models["file"]) == sorted(surveyed.models["file"])
    assert set(found.models["status"]) == {"done"}
    assert not list((tmp_path / "lake").rglob(".emergraph-*"))


def killed_once(model, key, look):
    """Write a row as a worker does; the first that comes to the third file ends in the middle of it."""
    mark = Path(os.environ["KILLED_ONCE"])
    if Path(model.path).name == "net1.safetensors" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    write_found(Path(look.lake), key, {**module._about(model, look), "status": "done"}, [], again=False)
    return key


def test_a_file_that_needs_more_than_its_memory_is_a_row_and_others_go_on(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    tiny_weights(models / "tiny.safetensors", 1)
    large = {"fc.weight": np.random.default_rng(0).standard_normal((3000, 3000), dtype=np.float32)}
    write_safetensors(models / "large.safetensors", large)
    found = survey(models, tmp_path / "lake", PopulationOptions(file_memory="700MiB"))
    rows = {
        name: (status, reason) for name, status, reason in found.models["name", "status", "reason"].rows()
    }
    assert rows["tiny.safetensors"] == ("done", None)
    assert rows["large.safetensors"][0] == "limit"
    assert "more than 0.684 GiB of memory" in rows["large.safetensors"][1]
    assert "--file-memory" in rows["large.safetensors"][1]


def test_weights_that_stay_in_the_file_are_handed_to_analyses(tmp_path, monkeypatch):
    """The store of a large model has no edges: what is analysed finds them in the model."""
    models = tmp_path / "models"
    models.mkdir()
    dense_onnx(models / "net.onnx", [sparse_weights((30, 40), seed=1), sparse_weights((40, 20), seed=2)])
    monkeypatch.setattr(module, "call_offline", lambda function, look, **_: function(look))
    monkeypatch.setattr(filetensors, "IN_PLACE_EDGES", 100)
    engine, options = EngineOptions(backend=Backend.SERIAL), PopulationOptions(analyses=("topology",))
    found = survey(models, tmp_path / "lake", options, engine)
    assert found.models.select("status", "notes").rows() == [("done", [])]
    (kept,) = ask(tmp_path / "lake", "SELECT command FROM runs").rows()
    assert kept == ("topology",)
    (edges,) = (tmp_path / "lake").glob("graph=*/connections/*")
    assert pl.read_parquet(edges).height == 0
    with monkeypatch.context() as patch:
        patch.setattr(onefile, "_weights", lambda *_: nullcontext())
        lacking = survey(models, tmp_path / "other", options, engine)
    ((status, reason),) = lacking.models.select("status", "reason").rows()
    assert status == "failed"
    assert "add --model FILE" in reason


def test_an_interruption_keeps_what_is_done(folder, tmp_path, monkeypatch):
    seen, answer = [], {"row": {"status": "done"}, "findings": []}

    def interrupted(function, look, **_):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(look.path)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(module, "call_offline", interrupted)
        with pytest.raises(KeyboardInterrupt):
            survey(folder, tmp_path / "lake", engine=EngineOptions(backend=Backend.SERIAL))
        patch.setattr(module, "call_offline", lambda *_, **__: answer)
        found = survey(folder, tmp_path / "lake", engine=EngineOptions(backend=Backend.SERIAL))
    assert found.models.height == found.models["file"].n_unique() == N - 1
    assert found.looked_at == N - 1 - 2


def test_lists_folders_of_models_and_links(folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{folder / 'net0.safetensors'}\n\n{folder / 'inner'}\n{folder / 'gone.onnx'}\n")
    names = [Path(model.path).name for model in find_models(listed).models]
    assert names == ["gone.onnx", "copy.bin", "net0.safetensors"]
    model = tmp_path / "models"
    model.mkdir()
    (model / "config.json").write_text("{}")
    tiny_weights(model / "model.safetensors", 3)
    (model / "link.safetensors").symlink_to(folder / "net0.safetensors")
    found = find_models(model)
    assert [one.format for one in found.models] == ["folder"]
    assert found.others == {"links": 1}
    assert [one.format for one in find_models(model, root=folder.parent).models] == ["folder"]
    with pytest.raises(UsageError, match="one path per line"):
        find_models(folder / "net0.safetensors")
    with pytest.raises(InvalidInputError, match="no such file"):
        find_models(tmp_path / "nowhere")


def test_a_sharded_file_is_one_model_and_its_checksum_is_of_all_parts(tmp_path):
    index = {"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    for k in (1, 2):
        tiny_weights(tmp_path / f"m-{k}.safetensors", k)
    (found,) = find_models(tmp_path).models
    assert len(found.parts) == 3
    key = found.key()
    tiny_weights(tmp_path / "m-2.safetensors", 7)
    assert find_models(tmp_path).models[0].key() != key


@pytest.mark.parametrize(("most", "sketched"), [(0, True), (-1, False)])
def test_models_are_sketched_up_to_a_size(tmp_path, most, sketched):
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        write_chain(store, random_chain([4, 5]))  # which says that it has no parameters
        assert ("sketch" in fingerprints(store.graph(), most=most)) == sketched


def test_sizes_far_from_their_family_and_twins_are_named():
    def model(name, n, understood=None, weights=""):
        row = dict.fromkeys(MODELS)
        row |= {"name": name, "status": "done", "family": "net", "n_parameters": n, "weights": weights}
        return row | {"file": name, "n_parameters_understood": n if understood is None else understood}

    usual = [model(f"m{k}", 1000 + k, weights=f"w{k}") for k in range(9)]
    frame = pl.DataFrame(
        [*usual, model("far", 10**6), model("part", 1004, 502), model("twin", 1003, None, "w3")]
    )
    assert outliers(frame).select("name", "why").rows() == [
        ("part", "50.0 % understood"),
        ("far", outliers(frame)["why"][1]),
    ]
    assert outliers(frame.filter(pl.col("name").is_in(["m0", "m1", "far"]))).height == 0
    assert copies_of_weights(frame)["name"].to_list() == ["twin"]


def test_no_models_and_no_place(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    assert main(["survey", str(tmp_path / "empty"), "--out", str(tmp_path / "lake")]) == 0
    assert "No model file was found" in capfd.readouterr().out
    assert main(["survey", str(tmp_path / "empty")]) == 2
    assert "--out LAKE" in capfd.readouterr().err
    assert main(["survey", str(tmp_path / "empty"), "--out", str(tmp_path / "no" / "lake")]) == 2
    assert main(["survey", str(tmp_path / "empty"), "--out", "lake", "--analyses", "topologie"]) == 2
    assert "topology" in capfd.readouterr().err


def test_the_tables_of_no_files_have_all_columns(tmp_path):
    models, findings = read_tables(tmp_path, [])
    assert set(models.columns) == {*MODELS, "file"}
    assert "sentence" in findings.columns
