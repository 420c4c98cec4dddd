"""No pickle that would run code passes `check`, whatever its protocol, instructions and container."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from clifiles import DEMO
from picklecases import BURIED, CALLS, CONTAINERS, PROTOCOLS, tarred, zipped

from emergraph.errors import EmergraphError, ExitCode
from emergraph.exporters.checking import check_any
from emergraph.exporters.formats.pickles import SNIFFED
from emergraph.exporters.sources import export_any
from emergraph.exporters.weightfiles import inside
from emergraph.exporters.weightfiles.inside import CODE, code_inside
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.reader import read_weights

EVIL = {
    "0, REDUCE": CALLS["REDUCE"],
    "0, INST": CALLS["INST"],
    "2, OBJ": PROTOCOLS["2"](CALLS["OBJ"]),
    "3, NEWOBJ": PROTOCOLS["3"](CALLS["NEWOBJ"]),
    "4, STACK_GLOBAL": PROTOCOLS["4, framed"](CALLS["STACK_GLOBAL"]),
}


def code_found(path):
    """The findings about code, each of which must say so."""
    found = [finding for finding in check_any(path) if finding.id in CODE]
    for finding in found:
        assert "a pickle that would run code when loaded" in finding.message
    return found


def loading(path):
    """The exit code of a command that loads the file."""
    with pytest.raises(EmergraphError) as caught:
        export_any(path, None)
    return caught.value.exit_code


@pytest.mark.parametrize("call", CALLS)
def test_every_call_of_every_protocol(tmp_path, call):
    path = tmp_path / "model.pkl"
    for protocol, head in PROTOCOLS.items():
        path.write_bytes(head(CALLS[call]))
        assert code_found(path), protocol
        assert loading(path) is ExitCode.UNSAFE, protocol


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container(tmp_path, container):
    file_name, put = CONTAINERS[container]
    path = tmp_path / file_name
    for name, evil in EVIL.items():
        path.write_bytes(put(evil))
        assert code_found(path), name
        assert loading(path) is ExitCode.UNSAFE, name


@pytest.mark.parametrize("container", BURIED)
def test_pickles_with_other_bytes_before_them(tmp_path, container):
    file_name, put = BURIED[container]
    path = tmp_path / file_name
    for name, evil in EVIL.items():
        path.write_bytes(put(evil))
        assert code_found(path), name
        assert loading(path) is ExitCode.UNSAFE, name


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_no_code(tmp_path, protocol):
    values = {
        "text": "cos\nsystem\n(tR.",
        "numbers": [1, 2.5, None, True],
        "bytes": b"\x80\x04c",
        "deep": ((1,),),
    }
    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps(values, protocol))
    assert [finding.id for finding in check_any(path)] == ["WEIGHTS-NONE"]
    assert loading(path) is ExitCode.INVALID_INPUT


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_files_of_weights_are_no_code(tmp_path):
    state = {"w": torch.randn(50, 50), "half": torch.ones(3, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "script.pt")
    np.savez_compressed(
        tmp_path / "arrays.npz", a=np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
    )
    for path in tmp_path.iterdir():
        assert not {finding.id for finding in check_any(path)} & CODE, path.name


@pytest.mark.parametrize(
    "content",
    [
        b"cat\ndog\nmouse\n",
        b"column,other\n1,2\n3,4\n",
        b"import os\nos.system('x')\n",
        b"In the beginning\nthere was text.\n",
        b"(nothing)\n",
        b"c++\nrust\n.",
        b"# merges\nt h\ni n\n",
    ],
)
def test_text_is_no_pickle(tmp_path, content):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    assert not {finding.id for finding in check_any(path)} & CODE


def test_random_bytes_are_no_pickle(tmp_path):
    path = tmp_path / "values.bin"
    rng = np.random.default_rng(5)
    for _ in range(20):
        path.write_bytes(rng.integers(0, 256, 200_000, np.uint8).tobytes())
        assert [finding.id for finding in check_any(path)] == ["FILE-FORMAT"]


def test_a_pickle_longer_than_what_is_sniffed(tmp_path):
    path = tmp_path / "model"
    for padding in (SNIFFED - 100, SNIFFED + 100):
        path.write_bytes(b"(" + (b"V" + b"x" * 998 + b"\n") * (padding // 1000) + b"l0" + CALLS["REDUCE"])
        assert code_found(path)


def test_archives_nested_too_deep_are_told(tmp_path):
    path = tmp_path / "m.zip"
    content = CALLS["REDUCE"]
    for depth in range(inside._MAX_DEPTH + 1):
        content = zipped({"m": content})
        path.write_bytes(content)
        found = {finding.id for finding in check_any(path)}
        assert ("WEIGHTS-LIMIT" in found) is (depth == inside._MAX_DEPTH)
        assert bool(found & CODE) is (depth < inside._MAX_DEPTH)


def test_a_member_is_unpacked_up_to_a_limit():
    body = b"\x80\x02" + b"I1\n0" * 20_000 + CALLS["REDUCE"]
    content = memoryview(zipped({"m.pkl": body}, compression=zipfile.ZIP_DEFLATED))
    for limit in (len(body), len(body) - 1):
        found = [
            finding.id for finding in code_inside("m.zip", content, limits=WeightLimits(member_bytes=limit))
        ]
        assert ("WEIGHTS-LIMIT" in found) is (limit < len(body))
        assert "PICKLE-CODE" in found  # what calls stands before the last byte


def test_the_place_is_named(tmp_path):
    path = tmp_path / "m.tar"
    path.write_bytes(tarred({"inner/a.zip": zipped({"b/c.pkl": CALLS["INST"]})}))
    assert "inner/a.zip/b/c.pkl" in [finding.where for finding in code_found(path)]


def test_classes_may_be_left_out_but_not_code(tmp_path):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(zipfile.ZipInfo("archive/extra.pkl"), CALLS["REDUCE"])
    path.write_bytes(buffer.getvalue())
    assert [finding.where for finding in code_found(path)] == ["archive/extra.pkl"]
    assert loading(path) is ExitCode.UNSAFE


class Settings:
    """A class from elsewhere, for the file's reader."""


def test_a_class_that_no_weight_needs_is_named_and_graded_as_not_run(tmp_path):
    values = {"fc.weight": torch.ones(2, 3), "settings": Settings()}
    torch.save(values, tmp_path / "zip.pt")
    torch.save(values, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    plain = {"fc.weight": np.ones((2, 3), np.float32), "settings": Settings()}
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(plain))
    for path in tmp_path.iterdir():
        found = check_any(path)
        assert [(each.id, each.severity) for each in found] == [("PICKLE-SKIPPED", "warning")], path
        assert "Settings" in found[0].message
        assert "nothing of it was run" in found[0].message
        assert read_weights(path).n_parameters == 6


def test_a_class_that_is_needed_stays_a_reason_to_refuse(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"settings": Settings()}, path)
    assert {finding.id for finding in code_found(path)} == {"PICKLE-FOREIGN"}
    assert loading(path) is ExitCode.UNSAFE


ONNX_DAMAGE = {
    "sound": lambda model: model,
    "cut": lambda model: model[: len(model) * 2 // 3],
    "first byte": lambda model: b"\xff" + model[1:],
    "in the middle": lambda model: model[: len(model) // 2] + b"\xff" * 40 + model[len(model) // 2 + 40 :],
}


@pytest.mark.parametrize("damage", ONNX_DAMAGE)
@pytest.mark.parametrize("name", ["m.onnx", "m.bin"])
def test_pickles_behind_an_onnx_model_whole_or_damaged(tmp_path, damage, name):
    model = ONNX_DAMAGE[damage]((DEMO / "digits_dense.onnx").read_bytes())
    path = tmp_path / name
    path.write_bytes(model)
    assert not code_found(path)
    for evil in EVIL.values():
        for tail in (evil, zipped({"data.pkl": evil}), zipped({"a/b.bin": evil}), tarred({"x.pkl": evil})):
            path.write_bytes(model + tail)
            assert code_found(path), tail[:40]
