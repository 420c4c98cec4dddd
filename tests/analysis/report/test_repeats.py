"""The command that a report prints for a run gives the same numbers again, whatever options the run had."""

import html
import importlib
import json
import re
import shlex
import typing

import numpy as np
import onnx
import polars as pl
import pytest
from clifiles import DEMO
from decoders import decoder
from onnx import numpy_helper
from polars.testing import assert_frame_equal

from emergraph import api
from emergraph.analysis.figures.figure import Run
from emergraph.analysis.pruning.options import Keeping
from emergraph.analysis.registry import Known, analysis_named, built_in
from emergraph.analysis.report.collect import collect_report
from emergraph.analysis.report.html import report_page
from emergraph.analysis.skills.closedforms import multilinear_strength, skill_frequencies
from emergraph.cli.main import main
from emergraph.errors import ExitCode
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.exporters.traces.record import record_trace
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.query import run_query
from emergraph.graphstore.sql import compose
from emergraph.graphstore.store import open_store
from emergraph.options import Options

SMALL = "--budget 0 --backend serial --directions 2 --slice-points 5 --walks 2 --walk-length 9 --pairs 2"
OUTPUT = onnx.load(DEMO / "digits_dense.onnx").graph.output[0].name
RUN = "--model digits_dense.onnx --inputs few.npz --trace few"
ON_MODEL = "--model digits_dense.onnx --inputs few.npz"
TWO = "--draws 1 --seed 2 --units 'position < 2'"
HEADS = "--budget 1000 --only-layers --resume --sample-axis pixels=0"
LABELLED = f"--inputs both.npz --target labels --ignore-label 3 --model-output {OUTPUT}"
MOVED = (
    "--distances 2 --layer-directions 2 --layer-walks 2 --layer-walk-length 5 --radius 0.5 --sigma 0.2"
    " --a 0.8 --adaptive-rho 0.3 --level 0.9 --samples 3 --to digits_dense.onnx"
)
STOPPING = (
    "--window 2 --max-lag 1 --permutations 99 --seed 3 --patience 1 --min-delta 0.01 --tolerance 0.2"
    " --share 0.3 --kinds weight"
)
RUNS = {
    "audit": ["", "--inputs few.npz --seed 3"],
    "emergence": [
        "",
        "--rule any --threshold 0.123456789 --paths weights --layers hidden --interiors any --exact",
        "--reference full --kinds weight,identity --endpoints all --unmeasured active",
        "--thresholds 0.01,0.05,0.1 --rule mean_abs",
        "--thresholds 5",
        "--thresholds all --trace few",
        "--draws 11 --seed 3 --threshold 0.07 --layers hidden",
        "--rule per_sample --draws 7",
        "--rule weight_change --before before",
        "--full --thresholds 7 --draws 9 --null-draws 5 --seed 2 --nulls activity_over_net",
        f"--full {RUN} --draws 4 --null-draws 4 --weight-draws 2 --noise 0.3",
        f"--positions {RUN} --threshold 0.2",
    ],
    "prune": [
        "",
        "--criterion synflow-iterative --rounds 3 --level 0.1234567,0.5",
        "--criterion random --seeds 3 --scope layer --level 0.5",
        "--criterion 2:4",
        "--criterion wanda --trace few --level 0.3",
        "--criterion l2 --level 0.3 --rule any --threshold 0.2",
        "--where 'abs(weight) < 0.1'",
        "--unit unit --where 'mean < 0.02'",
        "--sensitivity --level 0.25",
        "--model digits_dense.onnx --inputs few.npz --labels classes.npz --ignore-label 3 --level 0.5",
        "--sensitivity --criterion random --model digits_dense.onnx --inputs few.npz --level 0.5",
    ],
    "percolate": [
        "",
        "--order activity --trace few --seeds 2 --nulls 1 --structure absent --points 9 --seed 4",
        "--order l2*weight --seeds 2 --nulls 1",
    ],
    "topology": ["", "--alpha 0.2 --nulls 2 --max-edges 50 --no-motifs --seed 5 --kinds weight"],
    "landscape": [
        f"{SMALL} {MOVED} --planes 1 --plane-points 5 --rho 0.1 --balls 2 --seed 7 --norm layer --masks 3",
        f"{SMALL} --planes 0 --balls 0 --layer-directions 0 --layer-walks 0 {LABELLED}",
    ],
    "circuit": [
        f"{ON_MODEL} --samples 6 --units \"layer = 'hidden2'\"",
        f"{ON_MODEL} --target {OUTPUT}:1 --baseline resample --share 0.5 --samples 5 {TWO}",
    ],
    "contributions": [f"{ON_MODEL} --samples 4 --top 3 --units 'position < 3'"],
    "paths": ["", "--from 'position < 3' --to \"layer = 'head'\" --strongest 2 --kinds weight"],
    "influence": [
        f"{ON_MODEL} --samples 4 --units 'position < 3'",
        f"{ON_MODEL} --target {OUTPUT}:1 --baseline resample --seed 3 --samples 5 {HEADS}",
        f"{ON_MODEL} --patch few.npz --at 0,1 --samples 3",
    ],
    "information": [
        "--entities 5 --shots 3 --repeats 4 --dimensions 2 --samples 50 --seed 3 --micro first",
        "--sequences ids.txt --estimator ksg --projection random --seeds 2 --repeats 3",
    ],
    "skills fit": ["--share 0.4 --separator semicolon", "--alpha 0.6 --target 1.1", "--axis data"],
    "lineage": ["", "--level 1e-4 --neighbours 3 --seed 2"],
    "skills simulate": [
        "--skills 2 --steps 30 --width 8 --batch 16 --points 3 --evaluation 8 --bits 8 --rate 0.1 --seed 4"
    ],
    "trajectory": [f"--graphs 'step*' --metric loss --lower-is-better --rule any --threshold 0.1 {STOPPING}"],
}
"""Options of runs, by command; each class of options has some that are not at their default."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, its samples, and a store of its graph, an earlier one and snapshots."""
    place = tmp_path_factory.mktemp("repeats")
    model, store = place / "digits_dense.onnx", place / "net.duckdb"
    model.write_bytes((DEMO / "digits_dense.onnx").read_bytes())
    earlier = onnx.load(model)
    weight = earlier.graph.initializer[0]
    changed = numpy_helper.to_array(weight) * np.float32(1.5)
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    onnx.save(earlier, place / "before.onnx")
    rng = np.random.default_rng(0)
    pixels = rng.random((12, 1, 8, 8), dtype=np.float32)
    labels = rng.integers(0, 10, 12)
    np.savez(place / "few.npz", pixels=pixels)
    np.savez(place / "classes.npz", labels=labels)
    np.savez(place / "both.npz", pixels=pixels, labels=labels)
    onnx.save(decoder()[0], place / "decoder.onnx")
    (place / "ids.txt").write_text("\n".join(f"{a} {b} {a}" for a in range(8) for b in range(8)))
    p, x = skill_frequencies(3, 0.6), np.linspace(0, 60, 30)
    rows = [
        {"skill": k, "step": t, "strength": float(multilinear_strength(t, p[k - 1])), "frequency": p[k - 1]}
        for k in (1, 2, 3)
        for t in x
    ]
    pl.DataFrame(rows).write_csv(place / "curves.csv", separator=";")
    with open_store(store, mode="create") as opened:
        export_onnx(place / "before.onnx", opened)
        for step in range(6):
            options = ExportOptions(name=f"step-{step}", step=step, force=True)
            graph = export_onnx(model, opened, options=options).graph
            opened.write_metrics(graph, {"loss": 1 / (1 + step)})
            record_trace(opened, graph, model, RandomInputs(4, step))
        export_onnx(model, opened, options=ExportOptions(force=True))
    graph = api.open_store(store).graph()
    graph.trace(place / "few.npz", model=model)
    graph.trace(RandomInputs(9, 1), model=model)
    return place


def last_run(folder, name="net.duckdb", number=None):
    """The newest run of a store, or another one, and what it wrote."""
    with open_store(folder / name) as store:
        row = store.connection.execute(
            "SELECT id, command, parameters, seed, result_tables FROM runs WHERE id = coalesce(?, id) "
            "ORDER BY id DESC LIMIT 1",
            [number],
        ).fetchall()[0]
        frames = {
            name: fetch_frame(
                store.connection, compose("SELECT * EXCLUDE (run) FROM {t} WHERE run = {r}", t=name, r=row[0])
            )
            for name in row[4]
        }
    run = Run(id=row[0], command=row[1], parameters=json.loads(row[2]), seed=row[3], tool_version="")
    return run, frames


def words_of(command, options):
    """The command line of a run."""
    files = {
        "STORE": "net.duckdb",
        "GRAPH": "digits_dense",
        "MODEL": "decoder.onnx" if command == "information" else "digits_dense.onnx",
        "FILE": "curves.csv",
        "MODELS": "net.duckdb",
    }
    subject = [files.get(word, word) for word in analysis_named(command).of.value.split()]
    return [*command.split(), *subject, *shlex.split(options)]


@pytest.mark.parametrize(
    ("command", "options"), [(command, one) for command, many in RUNS.items() for one in many]
)
def test_the_command_of_a_run_repeats_it(command, options, folder, monkeypatch):
    monkeypatch.chdir(folder)
    done = (ExitCode.OK, ExitCode.FINDINGS)
    assert main([*words_of(command, options), "--quiet", "--out", "/dev/null"]) in done
    run, frames = last_run(folder)
    line = Known(analyses=built_in()).repeat(run, store="net.duckdb", graph="digits_dense")
    assert main([*shlex.split(line)[1:], "--quiet", "--out", "/dev/null"]) in done
    again, repeated = last_run(folder)
    assert again.id == run.id + 1
    assert again.seed == run.seed
    assert repeated.keys() == frames.keys()
    for name, frame in frames.items():
        assert_frame_equal(repeated[name], frame, check_row_order=True, rel_tol=1e-9, abs_tol=0)
    ways = {"budget", "notes"}
    assert {**again.parameters, **dict.fromkeys(ways)} == {**run.parameters, **dict.fromkeys(ways)}, line
    assert any(frame.height for frame in frames.values())


@pytest.mark.parametrize(
    "command", [name for name in RUNS if analysis_named(name).run is None and " " not in name]
)
def test_the_classes_are_those_of_the_command(command):
    """What decides numbers is declared with the command; the rest is where results go."""
    function = getattr(importlib.import_module(f"emergraph.cli.commands.{command}"), command)
    taken = {
        hint
        for hint in typing.get_type_hints(function).values()
        if isinstance(hint, type) and issubclass(hint, Options)
    }
    assert taken - {Keeping, *analysis_named(command).looks} == set(analysis_named(command).options)


def typed(line):
    """Run a printed line as a shell would; words in capitals are the reader's."""
    files = {"FILE": "curves.csv", "FILE.npz": "few.npz"}
    for part in line.split(" && "):
        words = [files.get(word, word) for word in shlex.split(part)[1:]]
        assert main([*words, "--quiet", "--out", "/dev/null"]) in (ExitCode.OK, ExitCode.FINDINGS), part


@pytest.fixture(scope="module")
def filled(folder):
    """Lines that the page of a graph alone prints for its empty sections; they were run on `bare.duckdb`."""
    with open_store(folder / "bare.duckdb", mode="create") as opened:
        export_onnx(folder / "digits_dense.onnx", opened)
        before = collect_report(opened.graph())
    lines = {section.id: section.missing for section in before.sections if section.missing is not None}
    given = {"landscape": SMALL, "skills": "--separator semicolon", "audit": "--inputs few.npz --budget 20s"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for section, line in lines.items():
            if section != "training":  # which a script fills
                typed(f"{line} {given.get(section, '')}")
    return lines


def test_the_command_that_a_section_without_a_run_prints_fills_it(filled, folder):
    with open_store(folder / "bare.duckdb") as opened:
        after = collect_report(opened.graph())
    assert [section.id for section in after.sections if section.missing is not None] == ["training"]
    assert filled.keys() > {"audit", "circuit", "landscape", "skills"}
    shown = {section.id: section.finding for section in after.sections if section.id in filled}
    assert [name for name, finding in shown.items() if not finding] == ["training"]


@pytest.mark.usefixtures("filled")
def test_every_command_that_a_page_prints_runs_and_reproduces(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with open_store("bare.duckdb") as opened:
        report = collect_report(opened.graph())
    printed = [
        html.unescape(code) for code in re.findall(r"<code>(emergraph .*?)</code>", report_page(report), re.S)
    ]
    asked = [shlex.split(line)[2:] for line in printed if line.startswith("emergraph sql ")]
    assert {store for store, _ in asked} == {"bare.duckdb"}
    counts = " UNION ALL ".join(f"SELECT count(*) AS n FROM ({sql})" for _, sql in asked)
    assert run_query(folder / "bare.duckdb", counts).frame["n"].min() > 0
    runs = {line: number for number, line in report.commands.items()}
    others = {line for line in printed if not line.startswith("emergraph sql ")} - runs.keys()
    assert any("--write" in line for line in others)
    for line in sorted(others - set(filter(None, (section.missing for section in report.sections)))):
        typed(line)
    assert runs.keys() <= set(printed)
    for line, number in runs.items():  # of each command, a test above repeats a run
        if line.split(" ")[1] not in ("paths", "prune"):
            continue
        typed(line)
        _, frames = last_run(folder, "bare.duckdb", number)
        again, repeated = last_run(folder, "bare.duckdb")
        assert again.id > number
        for name, frame in frames.items():
            assert_frame_equal(repeated[name], frame, check_row_order=True, rel_tol=1e-9, abs_tol=0)


def test_every_section_has_a_finding():
    sections = {one.section.id for one in built_in() if one.section is not None}
    assert sections == {one.section.id for one in built_in() if one.section and one.headline}


def test_every_analysis_that_keeps_runs_is_repeated():
    assert RUNS.keys() == {one.name for one in built_in() if one.tables}
