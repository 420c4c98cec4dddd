"""Cases 32 to 37, 39 and 45 of the attacks on pickles: refused, nothing run, nothing large allocated."""

import io
import os
import pickle
import pkgutil
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.reader import read_weights

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("protocol", range(6))
def test_32_system_call_in_a_raw_pickle(refused, payload, protocol):
    message = refused(pickle.dumps({"w": payload}, protocol), "PICKLE-CODE", name="model.pkl")
    assert "system" in message


@pytest.mark.parametrize("protocol", range(6))
def test_33_system_call_in_a_torch_zip(refused, forge, payload, protocol):
    refused(forge.torch_zip(pickle.dumps({"w": payload}, protocol)), "PICKLE-CODE")


def test_33_the_same_payload_runs_when_python_unpickles_it(tmp_path, forge):
    """The payloads of these tests are real: Python's own unpickler would run them."""
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(forge.Payload(os.system, f"touch {marker}")))
    assert marker.exists()


@pytest.mark.parametrize("allow", [False, True])
def test_33_allowing_missing_classes_does_not_allow_calls(refused, forge, payload, allow):
    refused(forge.torch_zip(pickle.dumps([payload])), "PICKLE-CODE", allow_missing_classes=allow)


def test_34_raw_pickle_named_bin(refused, payload):
    refused(pickle.dumps(payload), "PICKLE-CODE", name="pytorch_model.bin")


def test_34_builtins_eval(refused, forge, marker):
    content = pickle.dumps(forge.Payload(eval, f"open({str(marker)!r}, 'w')"))
    assert "builtins.eval" in refused(content, "PICKLE-CODE")


def test_34_nested_loads(refused, forge, payload):
    content = pickle.dumps(forge.Payload(pickle.loads, pickle.dumps(payload)))
    refused(content, "PICKLE-CODE")


def test_34_call_whose_result_is_discarded(refused, forge, marker):
    call = b"cos\nsystem\n(" + forge.text(f"touch {marker}") + b"tR0"
    refused(forge.torch_zip(b"\x80\x02" + call + b"}."), "PICKLE-CODE")


def test_34_call_by_inst_and_obj(refused, forge, marker):
    argument = forge.text(f"touch {marker}")
    refused(b"(" + argument + b"ios\nsystem\n.", "PICKLE-CODE", name="a.pkl")
    refused(b"\x80\x02(cos\nsystem\n" + argument + b"o.", "PICKLE-CODE", name="a.pkl")


def test_35_resolve_name(refused, forge):
    content = pickle.dumps(forge.Payload(pkgutil.resolve_name, "os:system"))
    assert "pkgutil.resolve_name" in refused(forge.torch_zip(content), "PICKLE-CODE")


def test_36_attribute_path_into_torch(refused, forge):
    names = forge.text("torch._dynamo.guards") + forge.text("GuardBuilder.get")
    content = b"\x80\x04" + names + b"\x93(" + forge.text("x") + b"tR."
    refused(forge.torch_zip(content), "PICKLE-CODE", allow_missing_classes=True)


def test_36_name_computed_on_the_stack(refused, forge):
    """STACK_GLOBAL whose name comes out of a call cannot be judged, so it is refused."""
    made = b"ctorch\nSize\n)R"
    refused(forge.torch_zip(b"\x80\x04" + forge.text("os") + made + b"\x93."), "PICKLE-OPCODE")


@pytest.mark.parametrize("broken", [b"\xff", b"", b"(((", b"X\xff\xff\xff\x7f"])
def test_37_payload_then_broken_instructions(refused, forge, marker, broken):
    call = b"\x80\x02cos\nsystem\n(" + forge.text(f"touch {marker}") + b"tR"
    refused(forge.torch_zip(call + broken), "PICKLE-CODE")


def test_37_foreign_class_then_broken_instructions(refused, forge):
    refused(forge.torch_zip(b"\x80\x02cevil\nLoader\n)\x81\xff"), "PICKLE-FOREIGN")


def test_39_memo_bomb(refused, forge):
    """CPython would ask for some 32 GB to write memo entry 2^31 - 1."""
    refused(forge.torch_zip(b"\x80\x02Nr" + struct.pack("<I", 0x7FFFFFFF) + b"."), "PICKLE-BOMB")
    refused(forge.torch_zip(b"Np2147483647\n."), "PICKLE-BOMB")


def test_39_marks(refused, forge):
    refused(forge.torch_zip(b"\x80\x02" + b"(" * 200_000 + b"."), "PICKLE-BOMB")


def test_39_bytes_of_a_terabyte(refused, forge):
    refused(forge.torch_zip(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"."), "PICKLE-DAMAGED")
    refused(forge.torch_zip(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 63) + b"."), "PICKLE-DAMAGED")


def test_39_doubled_tuples_as_a_key(refused, forge):
    """Hashing 40 pairs that share their halves takes 2^40 steps."""
    key = b"N" + b"2\x86" * 40
    refused(forge.torch_zip(b"\x80\x02}" + key + b"Ns."), "PICKLE-BOMB")
    refused(forge.torch_zip(b"\x80\x02(" + key + b"Nd."), "PICKLE-BOMB")
    refused(forge.torch_zip(b"\x80\x04(" + key + b"\x91."), "PICKLE-BOMB")
    refused(forge.torch_zip(b"\x80\x04\x8f(" + key + b"\x90."), "PICKLE-BOMB")


@pytest.mark.parametrize(
    "body",
    [
        b"N" + b"2\x86" * 40,
        b"]" + b"".join(b"r" + struct.pack("<I", i) + b"0](h%ch%ce" % (i, i) for i in range(40)),
        b"N" + b"".join(b"r" + struct.pack("<I", i) + b"0}(K\x00h%cK\x01h%cu" % (i, i) for i in range(40)),
    ],
    ids=["tuples", "lists", "dicts"],
)
def test_39_doubled_containers_as_values(refused, forge, body):
    """Harmless to unpickle, endless to walk through."""
    refused(forge.torch_zip(b"\x80\x02" + body + b"."), "PICKLE-BOMB")


def test_39_deep_nesting(refused, forge):
    refused(forge.torch_zip(b"\x80\x02" + b"N" + b"\x85" * 20_000 + b"."), "PICKLE-BOMB")
    deep = b"N" + b"\x85" * 20_000
    refused(forge.torch_zip(b"\x80\x02}" + deep + b"Ns."), "PICKLE-BOMB")


def test_39_integers_that_collide(refused, forge):
    """Multiples of 2^61 - 1 all hash to 0: a dict of them takes quadratic time."""
    key = forge.number((2**61 - 1) * 3)
    refused(forge.torch_zip(b"\x80\x02}" + key + b"Ns."), "PICKLE-BOMB")
    refused(forge.torch_zip(b"\x80\x02}" + key + b"\x85Ns."), "PICKLE-BOMB")


def test_39_huge_integer(refused, forge):
    content = b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20) + b"."
    refused(forge.torch_zip(content), "PICKLE-BOMB")


def test_39_too_many_instructions(refused, forge):
    limits = WeightLimits(pickle_opcodes=1_000)
    refused(forge.torch_zip(b"\x80\x02](" + b"N" * 2_000 + b"e."), "WEIGHTS-LIMIT", limits=limits)


def test_39_pickle_larger_than_the_limit(refused, forge):
    limits = WeightLimits(pickle_bytes=1_000)
    content = b"\x80\x02](" + forge.text("x" * 100) * 50 + b"e."
    refused(forge.torch_zip(content), "WEIGHTS-LIMIT", limits=limits)


@pytest.mark.parametrize(
    ("made", "call"),
    [
        (b"](" + b"N" * 5_000 + b"e", b"cbuiltins\nset\n"),
        (b"X" + struct.pack("<I", 100_000) + b"x" * 100_000, b"c_codecs\nencode\n"),
        (b"](" + b"K\x01" * 900 + b"e", b"ctorch\nSize\n"),
        (
            b"}(" + b"".join(b"M" + struct.pack("<H", i) + b"N" for i in range(2_000)) + b"u",
            b"ccollections\nCounter\n",
        ),
    ],
    ids=["list", "text", "sizes", "dict"],
)
def test_39_values_copied_again_and_again(refused, forge, made, call):
    """A long list, and a call that copies it, repeated: a few bytes each time."""
    body = call + b"q\x010" + made + b"q\x020](" + b"h\x01h\x02\x85R" * 10_000 + b"e"
    refused(forge.torch_zip(b"\x80\x02" + body + b"."), "PICKLE-BOMB")


def test_39_one_long_name_around_many_tensors(refused, forge):
    inner = b"}(" + b"".join(forge.text(f"w{i}") + forge.tensor((1,), (1,)) for i in range(200)) + b"u"
    content = forge.torch_zip(forge.state_dict(**{"x" * 10_000: inner}), {"0": bytes(16)})
    refused(content, "PICKLE-BOMB", limits=WeightLimits(pickle_bytes=1_000_000))


@pytest.mark.parametrize(
    "body",
    [
        b"\x82\x01.",
        b"\x83\x01\x00.",
        b"\x84\x01\x00\x00\x00.",
        b"\x97.",
        b"ctorch\nFloatStorage\n}(U\x01aNub.",
        b"ctorch._utils\n_rebuild_tensor_v2\nN}U\x0c__defaults__NsN\x86b.",
        b"NN\x85R.",
        b"NN\x85\x81.",
    ],
    ids=["ext1", "ext2", "ext4", "buffer", "build class", "build function", "call nothing", "new nothing"],
)
def test_instructions_that_no_weights_need(refused, forge, body):
    refused(forge.torch_zip(b"\x80\x02" + body), "PICKLE-OPCODE")


def test_building_on_a_tensor_is_refused(refused, forge):
    made = forge.tensor((2, 2), (2, 1)) + b"}(" + forge.text("shape") + forge.numbers((9, 9)) + b"ub"
    refused(forge.torch_zip(forge.state_dict(w=made), {"0": bytes(16)}), "PICKLE-OPCODE")


def test_two_pickles_in_one_record(refused, forge, payload):
    content = forge.state_dict() + pickle.dumps(payload)
    refused(forge.torch_zip(content), "PICKLE-TRAILING")
    refused(content, "PICKLE-TRAILING", name="a.pkl")


def test_45_whole_module(refused, forge, save):
    buffer = io.BytesIO()
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 2)), buffer)
    message = refused(buffer.getvalue(), "PICKLE-MODULE")
    assert "state_dict" in message
    assert "ONNX" in message
    assert "torch.nn.modules.container.Sequential" in message


def test_45_module_weights_without_its_code(save):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    buffer = io.BytesIO()
    torch.save({"model": model, "epoch": 3}, buffer)
    weights = read_weights(save(buffer.getvalue()), allow_missing_classes=True)
    expected = model.state_dict()
    assert list(weights.tensors) == list(expected)
    for name, value in expected.items():
        assert weights.tensors[name].array().tobytes() == value.numpy().tobytes()
    assert weights.metadata["epoch"] == 3
    assert any("torch.nn.modules.linear.Linear" in entry.reason for entry in weights.skipped)


def test_reading_bombs_stays_small_in_a_process_of_its_own(tmp_path, forge):
    """The whole process, measured by the system: no case takes 64 MiB more than reading nothing."""
    cases = [
        forge.torch_zip(b"\x80\x02Nr" + struct.pack("<I", 0x7FFFFFFF) + b"."),
        forge.torch_zip(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"."),
        forge.torch_zip(b"\x80\x02}N" + b"2\x86" * 40 + b"Ns."),
        forge.torch_zip(forge.state_dict(w=forge.tensor((100_000, 100_000), (0, 0))), {"0": bytes(16)}),
        struct.pack("<Q", 1 << 40) + b'{"',
    ]
    for index, content in enumerate(cases):
        (tmp_path / f"{index}.pt").write_bytes(content)
    script = """
import resource, sys
from pathlib import Path
from emergraph.errors import EmergraphError
from emergraph.exporters.weightfiles.reader import read_weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = 0
for path in sorted(Path(sys.argv[1]).glob("*.pt")):
    try:
        read_weights(path)
    except EmergraphError:
        refused += 1
print(refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    out = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    scale = 1 if sys.platform == "darwin" else 1024
    assert int(out[0]) == len(cases)
    assert int(out[1]) * scale < 64 << 20


def test_49_torch_is_optional_and_recent():
    """Versions before 2.10 run code or corrupt memory on hostile files, even with weights_only."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert not any(requirement.startswith("torch") for requirement in project["dependencies"])
    (torch_requirement,) = [r for r in project["optional-dependencies"]["torch"] if r.startswith("torch")]
    assert torch_requirement == "torch>=2.10"


def test_reading_imports_no_torch(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt")
    script = """
import sys
sys.modules["torch"] = None
from emergraph.exporters.weightfiles.reader import read_weights
print(read_weights(sys.argv[1]).tensors["w"].array().tolist())
"""
    command = [sys.executable, "-c", script, str(tmp_path / "m.pt")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.strip() == "[1.0, 1.0]"
