"""`--root`: every command that reads a model follows links below it, and names it where it refuses one."""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from clifiles import DEMO
from decoders import decoder
from safetensors.numpy import save_file

import emergraph
from emergraph.cli.app import program
from emergraph.cli.main import main
from emergraph.errors import UnsafeInputError
from emergraph.exporters.checking import check_any
from emergraph.exporters.onnxfile.links import root_for

SNAPSHOT = "hub/models--org--net/snapshots/abc"
READERS = {
    "circuit": "circuit net.duckdb --model {model} --inputs digits.npz --samples 2 --draws 1 --no-save",
    "contributions": "contributions net.duckdb --model {model} --inputs digits.npz --samples 2 --no-save",
    "convert": "convert net.duckdb --to edgelist --target edges.txt --model {model} --verify",
    "influence": "influence net.duckdb --model {model} --inputs digits.npz --samples 2 --only-layers",
    "paths": "paths net.duckdb --model {model} --verify --no-save",
    "percolate": "percolate net.duckdb --model {model} --verify --no-save",
    "sql": "sql net.duckdb 'SELECT count(*) FROM edges' --model {model} --verify",
    "topology": "topology net.duckdb --model {model} --verify --no-save",
    "audit": "audit {model} --fail-on error --format json",
    "check": "check {model} --format json",
    "export": "export {model} new.duckdb -q",
    "trace": "trace net.duckdb digits.npz --model {model} -q",
    "landscape": "landscape {model} --samples 2 --budget 0.1s -q",
    "diff": "diff {model} plain.onnx --no-match-units -q",
    "explore": "explore net.duckdb --model {model} --verify --out page.html -q",
    "lineage": "lineage {model} plain.onnx -q",
    "report": "report {model} --store report.duckdb --budget 4s --out page.html -q",
    "prune": "prune net.duckdb --level 0.5 --model {model} --inputs digits.npz --write pruned.onnx -q",
    "information": "information {decoder} --entities 5 --first-id 1 --shots 3 --repeats 2 --dimensions 2 -q",
    "emergence": "emergence net.duckdb --positions --model {model} --inputs digits.npz -q",
}
"""A command line of each command that reads a model."""
LISTING = ("audit", "check")
"""Those that list a refusal among what they find."""


@dataclass(frozen=True)
class Cached:
    """A download cache: snapshots that hold links to blobs."""

    model: str
    decoder: str
    sharded: str


def place(folder, name, content):
    """Put a file into a cache: a blob, and a link to it in the snapshot."""
    blobs, snapshot = folder / "hub/models--org--net/blobs", folder / SNAPSHOT
    blobs.mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True, exist_ok=True)
    blob = blobs / f"blob-{name}"
    blob.write_bytes(content)
    (snapshot / name).symlink_to(f"../../blobs/{blob.name}")


def split(folder, model, name):
    """Save a model with its values in a file of their own, both in the cache."""
    onnx.save(model, folder / name, save_as_external_data=True, location=f"{name}_data", size_threshold=0)
    for part in (name, f"{name}_data"):
        place(folder, part, (folder / part).read_bytes())
        (folder / part).unlink()
    return f"{SNAPSHOT}/{name}"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO / "digits.npz", "digits.npz")
    shutil.copy(DEMO / "digits_conv.onnx", "plain.onnx")
    model = split(tmp_path, onnx.load(DEMO / "digits_conv.onnx"), "model.onnx")
    decoder_path = split(tmp_path, decoder()[0], "decoder.onnx")
    for name in ("a", "b"):
        save_file({f"{name}.weight": np.ones((3, 2), np.float32)}, f"{name}.safetensors")
        place(tmp_path, f"{name}.safetensors", (tmp_path / f"{name}.safetensors").read_bytes())
    index = b'{"weight_map": {"a.weight": "a.safetensors", "b.weight": "b.safetensors"}}'
    place(tmp_path, "model.safetensors.index.json", index)
    assert main(["export", model, "net.duckdb", "--root", "hub", "-q"]) == 0
    assert main(["trace", "net.duckdb", "digits.npz", "--model", model, "--root", "hub", "-q"]) == 0
    return Cached(model, decoder_path, SNAPSHOT)


def named_command(text):
    """The command line that a refusal names."""
    found = re.search(r"; run: emergraph (.*? --root [^\s\"]+)", text)
    assert found is not None, text
    return shlex.split(found[1])


def test_every_command_that_reads_a_model_has_the_option():
    group = program()
    having = {
        name
        for name, command in group.commands.items()
        if any("--root" in parameter.opts for parameter in command.params)
    }
    # trajectories need snapshots of a training; their --model is that of the other declared analyses
    assert having == READERS.keys() | {"trajectory", "survey"}


@pytest.mark.families
def test_a_survey_counts_links_and_names_the_option(run, cached):
    left_out = run("survey", SNAPSHOT, "--out", "lake")
    assert left_out.code == 0
    assert "links are followed where they lead inside the folder of --root FOLDER" in left_out.err
    followed = run("survey", SNAPSHOT, "--root", "hub", "--out", "lake", "--format", "json", "--jobs", "1")
    assert json.loads(followed.out)["files"] >= 2
    assert "links" not in followed.err


@pytest.mark.parametrize("name", READERS)
def test_a_refusal_names_the_command_that_works(run, cached, name):
    words = shlex.split(READERS[name].format(model=cached.model, decoder=cached.decoder))
    refused = run(*words)
    assert refused.code == (1 if name in LISTING else 4), refused.err
    told = refused.out if name in LISTING else refused.err.strip().splitlines()[-1]
    again = named_command(" ".join(told.split()))
    assert again == [*words, "--root", "hub/models--org--net"]
    accepted = run(*again)
    assert accepted.code == 0, accepted.err
    assert "--root" not in accepted.err


@pytest.mark.parametrize("words", ["check {0} --format json", "export {0} new.duckdb", "diff {0} {0}"])
def test_sharded_weights_in_a_cache(run, cached, words):
    words = shlex.split(words.format(cached.sharded))
    refused = run(*words)
    assert refused.code == (1 if words[0] == "check" else 4)
    if words[0] == "check":
        assert {finding["id"] for finding in json.loads(refused.out)} == {"FOLDER-LINK"}
    again = named_command(refused.out + refused.err)
    assert again == [*words, "--root", "hub/models--org--net"]
    assert run(*again).code == 0


def test_another_root_is_replaced(run, cached, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for given in (["--root", "elsewhere"], ["--root=elsewhere"]):
        refused = run("export", cached.model, "new.duckdb", *given)
        assert refused.code == 4
        assert named_command(refused.err) == [
            "export",
            cached.model,
            "new.duckdb",
            "--root",
            "hub/models--org--net",
        ]


def test_a_link_out_of_the_root_is_refused(run, cached, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 100_000)
    link = tmp_path / SNAPSHOT / "model.onnx_data"
    link.unlink()
    link.symlink_to(secret)
    refused = run("export", cached.model, "new.duckdb", "--root", "hub")
    assert refused.code == 4
    assert str(secret) in refused.err
    assert not (tmp_path / "new.duckdb").exists()


def test_the_same_from_python(cached):
    with pytest.raises(UnsafeInputError, match="--root"):
        emergraph.export(cached.model, "new.duckdb")
    graph = emergraph.export(cached.model, "new.duckdb", root="hub")
    with pytest.raises(UnsafeInputError, match="--root"):
        graph.trace("digits.npz", model=cached.model)
    summary = graph.trace("digits.npz", model=cached.model, root=Path("hub"))
    assert summary.n_samples == 300
    assert [finding.id for finding in check_any(cached.model, root=Path("hub"))] == ["ONNX-EXT-USED"]


def test_the_root_that_is_named_holds_the_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b c").mkdir()
    (tmp_path / "b c/blob").write_bytes(b"x")
    (tmp_path / "a/link").symlink_to("../b c/blob")
    assert str(root_for(tmp_path / "a/link")) == "."
    monkeypatch.chdir(tmp_path / "a")
    assert root_for(tmp_path / "a/link") == tmp_path
    (tmp_path / "a/far").symlink_to("/etc/hostname")
    assert str(root_for(tmp_path / "a/far")) == "/etc"
