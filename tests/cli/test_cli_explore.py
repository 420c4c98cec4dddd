"""`explore` from the command line: of a store, and of a model, which it exports, audits and traces."""

import duckdb
import numpy as np
import pytest
from clifiles import DEMO
from explorerdata import page_data

MODEL = DEMO / "digits_dense.onnx"


def page_at(path):
    return page_data(path.read_text(encoding="utf-8"))


def test_a_store_with_an_audit_and_a_circuit(run, traced, tmp_path):
    out = tmp_path / "page.html"
    of = ("--graph", "digits_dense")
    assert run("audit", MODEL, "--store", traced, "--quiet").code == 1
    circuit = ("--model", MODEL, "--inputs", DEMO / "digits.npz", "--target", "scores:3", "--samples", 8)
    assert run("circuit", traced, *of, *circuit, "--quiet").code == 0
    told = run("explore", traced, *of, "--strongest", 3, "--out", out)
    assert (told.code, told.out, told.err) == (0, "", f"Wrote {out}\n")
    header, arrays = page_at(out)
    assert (header["title"], header["k"]) == ("digits_dense", 3)
    with duckdb.connect(str(traced), read_only=True) as store:
        findings = store.execute("SELECT sentence, n_units FROM audit_findings ORDER BY place").fetchall()
        units = store.execute("SELECT run, unit FROM circuit_units ORDER BY unit").fetchall()
        audited = store.execute("SELECT unit FROM audit_units AS a JOIN unit_activations AS u "
                                "ON u.layer_name = a.layer AND u.position = a.position AND u.graph = 1 "
                                "ORDER BY a.place, unit").fetchall()  # fmt: skip
    assert [(found["sentence"], found["about"]) for found in header["findings"]] == findings
    assert [found["units"] for found in header["findings"]] == [n for _, n in findings]
    assert arrays["finding_units"].tolist() == [unit for (unit,) in audited]
    assert audited
    (circuit,) = header["circuits"]
    assert (circuit["run"], circuit["target"]) == (units[0][0], "scores:3")
    assert arrays["circuit_units"].tolist() == [unit for _, unit in units]
    names = {column["name"] for column in header["columns"]}
    assert {"activity.mean", "circuit_units.effect", "audit.findings"} <= names
    counted = arrays[f"column{[column['name'] for column in header['columns']].index('audit.findings')}"]
    assert np.nansum(counted) == len(audited)


def test_a_model_is_exported_audited_and_traced(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = run("explore", MODEL, "--inputs", DEMO / "digits.npz", "--store", "kept.duckdb", "--budget", "5m")
    assert told.code == 0, told.err
    assert [line.split()[5] for line in told.err.splitlines()[:-1]] == ["export", "audit", "trace"]
    assert told.err.endswith("Wrote explorer.html\n")
    header, _ = page_at(tmp_path / "explorer.html")
    assert header["store"] == "kept.duckdb"
    assert header["findings"]
    assert "activity.mean" in {column["name"] for column in header["columns"]}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--graph", "nothing"], 2, "graph"),
        (["--strongest", "0"], 2, "strongest"),
        (["--verify"], 2, "--model"),
        (["--format", "json"], 2, "format"),
    ],
)
def test_what_cannot_be_explored(run, exported, tmp_path, options, code, message):
    told = run("explore", exported, "--out", tmp_path / "page.html", *options)
    assert told.code == code
    assert message in told.err
    assert not (tmp_path / "page.html").exists()
