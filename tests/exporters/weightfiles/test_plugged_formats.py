"""Formats of plug-ins: read in a child with limits and no network, asked for what nothing built in reads."""

import os
from pathlib import Path

import numpy as np
import pytest
import toyplugin
from toyplugin import ToyPlugin

from emergraph.errors import InvalidInputError, LimitError, UnsafeInputError, UsageError
from emergraph.exporters.checking import check_any
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.sourcekinds import SourceKind, source_kind
from emergraph.exporters.weightfiles import plugged
from emergraph.exporters.weightfiles.files import map_file
from emergraph.exporters.weightfiles.limits import DEFAULT_LIMITS
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.weightfile import Contents
from emergraph.plugins import Plugins

pytestmark = pytest.mark.cold  # plug-ins are looked for where the process finds its packages
CODE = """
import os, socket, time
import numpy as np
from emergraph.exporters.formats import Format

def read(content):
    {read}

IT = Format(name="toy", title="a toy file", step="", sniff=lambda sample: {sniff}, read=read)
"""
GIVES = 'return {"layer.weight": np.frombuffer(content[4:], "<f4").reshape(2, 3), "n": np.int64(7)}'
SIX = b"TOY1" + np.arange(6, dtype="<f4").tobytes()
KNOWS = 'sample.head[:4] == b"TOY1"'
NAMED = "reading model.toy with the format plug-in toy"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Install plug-ins with these readers; return a file of their format."""
    helpers = str(Path(toyplugin.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")]))

    def make(*reads, sniff=KNOWS, content=SIX):
        codes = [read if "IT =" in read else CODE.format(read=read, sniff=sniff) for read in reads]
        names = ["toy", "other"]
        found = tuple(ToyPlugin(name=name, code=code) for name, code in zip(names, codes, strict=False))
        monkeypatch.setattr(plugged, "format_plugins", lambda: Plugins(found=found))
        file = tmp_path / "model.toy"
        file.write_bytes(content)
        return file

    return make


def test_the_arrays_come_back(toy):
    file = toy(GIVES)
    weights = read_weights(file)
    assert (weights.format, weights.source, weights.size) == ("toy", "model.toy", 28)
    assert weights.tensors["layer.weight"].array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert weights.tensors["n"].array().shape == ()
    assert source_kind(file) is SourceKind.WEIGHTS


def test_a_plugin_is_asked_for_nothing_that_is_read_anyway(toy):
    file = toy("raise ValueError", sniff="True")
    np.savez(file.with_suffix(".npz"), weight=np.ones((2, 3)))
    assert read_weights(file.with_suffix(".npz")).format == "npz"


def test_a_file_that_no_plugin_knows_is_named_as_without_them(toy):
    file = toy(GIVES, content=b"\x89PNG\r\n\x1a\n0000")
    with pytest.raises(InvalidInputError, match="a PNG image"):
        read_weights(file)


@pytest.mark.parametrize("plugin", [None, "toy"])
def test_check_asks_none_unless_it_is_named(toy, plugin):
    found = check_any(toy(GIVES), plugin=plugin)
    assert [finding.id for finding in found] == ([] if plugin else ["FILE-FORMAT"])


def test_a_plugin_that_is_named_need_not_know_the_file(toy):
    assert check_any(toy(GIVES, sniff="False"), plugin="toy") == []


def test_names_of_plugins_that_are_not_there(toy):
    with pytest.raises(UsageError, match="unknown format plug-in 'boat'; available: toy"):
        check_any(toy(GIVES), plugin="boat")


@pytest.mark.parametrize(
    ("read", "kind", "said"),
    [
        ("raise ValueError('line 3')", InvalidInputError, f"{NAMED} failed: ValueError: line 3"),
        ("return [1]", InvalidInputError, "it gave list, expected arrays by name"),
        ("return {'a': np.array(['x'])}", InvalidInputError, "tensor 'a' is of type <U1, expected numbers"),
        ("return {'a': object()}", InvalidInputError, "tensor 'a' is of type object, expected numbers"),
        ("return {}", InvalidInputError, "the file holds no weights"),
        ("socket.create_connection(('192.0.2.1', 80))", UnsafeInputError, "would contact .*--no-plugins"),
        ("os._exit(3)", InvalidInputError, f"{NAMED} ended: exit code 3"),
        ("os.abort()", InvalidInputError, rf"{NAMED} crashed \(SIGABRT\)"),
        ("IT = 7", InvalidInputError, "plug-in toy of toys 1.0 cannot be used: toys:IT is not a Format"),
        ("IT = 1 / 0", InvalidInputError, "plug-in toy of toys 1.0 cannot be used: ZeroDivisionError"),
    ],
)
def test_what_goes_wrong_in_it_is_one_line(toy, read, kind, said):
    with pytest.raises(kind, match=said) as caught:
        read_weights(toy(read))
    assert "\n" not in str(caught.value)


def test_a_broken_one_does_not_keep_another_from_reading(toy):
    assert read_weights(toy("IT = 7", GIVES)).format == "other"


@pytest.mark.parametrize(
    ("read", "limits", "said"),
    [
        ("bytearray(1 << 30); return {}", RunLimits(memory_bytes=512 << 20), "more than 0.5 GiB of memory"),
        ("time.sleep(60)", RunLimits(wall_seconds=3), "took longer than 3 s"),
    ],
)
def test_it_has_limits(toy, read, limits, said):
    with pytest.raises(LimitError, match=said):
        plugged.read_plugged(map_file(toy(read)), "toy", Contents(DEFAULT_LIMITS), limits=limits)
