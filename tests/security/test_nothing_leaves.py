"""Nothing leaves the machine: every command under strace, with an empty environment and home.

onnxruntime does not report where variables of continuous integration are set, so they are not.
"""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest
from clifiles import DEMO
from decoders import decoder
from straced import watch

pytestmark = [
    pytest.mark.strace,
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="no strace: apt-get install strace (Linux only)"
    ),
]

BARE = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
CHAINS = {
    "models": {
        "export": "export dense.onnx a.duckdb",
        "trace": "trace a.duckdb digits.npz --model dense.onnx",
        "emergence": "emergence a.duckdb --full --model dense.onnx --inputs digits.npz",
        "prune": "prune a.duckdb --model dense.onnx --inputs digits.npz",
        "write": "prune a.duckdb --level 0.5 --model dense.onnx --write smaller.onnx --save-graph small",
        "diff": "diff dense.onnx conv.onnx --out diff.html --format html",
        "topology": "topology a.duckdb",
        "plot svg": "plot a.duckdb layers --out layers.svg",
        "plot png": "plot a.duckdb strengths --out strengths.png",
        "sql": "sql a.duckdb SELECT(42)",
    },
    "analyses": {
        "check": "check dense.onnx",
        "landscape": "landscape dense.onnx --budget 3s --samples 2",
        "workers": "landscape dense.onnx --budget 2s --samples 2 --backend loky --jobs 2",
        "information": "information decoder.onnx --entities 5 --first-id 1 --shots 3 --repeats 2",
        "report": "report conv.onnx --budget 30s --out report.html",
    },
}
"""Commands by name, in their order; the two chains run side by side."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders: where the commands work, a home, a temporary folder, strace's notes."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("folder", "home", "temporary", "logs")}
    for name in ("dense", "conv"):
        shutil.copy(DEMO / f"digits_{name}.onnx", folders["folder"] / f"{name}.onnx")
    shutil.copy(DEMO / "digits.npz", folders["folder"])
    onnx.save(decoder()[0], folders["folder"] / "decoder.onnx")
    return folders


@pytest.fixture(scope="module")
def ran(place):
    """What every command did, by its name."""
    python = [sys.executable, "-m", "emergraph"]

    def run_all(commands):
        return {name: watch([*python, *words.split()], **place) for name, words in commands.items()}

    with ThreadPoolExecutor(2) as pool:
        chains = list(pool.map(run_all, CHAINS.values()))
    return {name: one for chain in chains for name, one in chain.items()}


def test_a_bare_session_reports_where_emergraph_is_not(place, tmp_path):
    alone = {**place, "home": tmp_path}
    seen = watch([sys.executable, "-c", BARE, DEMO / "digits_dense.onnx"], **alone)
    assert seen.code == 0, seen.err
    assert any("onnxruntime" in path for path in seen.outside(place["temporary"], place["folder"]))
    assert list(tmp_path.rglob("deviceid"))


def test_a_session_after_importing_emergraph_is_silent(place, tmp_path):
    alone = {**place, "home": tmp_path}
    seen = watch([sys.executable, "-c", f"import emergraph; {BARE}", DEMO / "digits_dense.onnx"], **alone)
    assert (seen.code, seen.network, seen.outside(place["temporary"])) == (0, (), [])


@pytest.mark.parametrize("name", [name for chain in CHAINS.values() for name in chain])
def test_a_command_calls_nobody_and_writes_nowhere_else(ran, place, name):
    seen = ran[name]
    assert seen.code == 0, seen.err
    assert seen.network == ()
    assert seen.outside(place["folder"], place["temporary"]) == []


def test_nothing_is_in_the_home_afterwards(ran, place):
    assert list(Path(place["home"]).iterdir()) == []
