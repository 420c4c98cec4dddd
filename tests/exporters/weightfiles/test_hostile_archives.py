"""Cases 38, 40, 44 and 48: zip archives that readers understand differently, bombs, paths, damaged files."""

import io
import pickle
import struct
import tarfile
import zipfile

import pytest

from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.reader import read_weights

torch = pytest.importorskip("torch")


@pytest.fixture
def saved():
    """A harmless state dict as torch.save writes it."""
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}, buffer)
    return buffer.getvalue()


@pytest.fixture
def evil(payload):
    return pickle.dumps(payload, 2)


def locals_of(data):
    """(header offset, name length, extra length, data size) of every record."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    found = {}
    for info in archive.infolist():
        sizes = struct.unpack("<2H", data[info.header_offset + 26 : info.header_offset + 30])
        found[info.filename] = (info.header_offset, *sizes, info.compress_size)
    return found


def patched(data, position, content):
    return data[:position] + content + data[position + len(content) :]


def test_38_duplicate_data_pkl(refused, forge, evil):
    """Evil first, harmless last: readers differ in which one they see."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = forge.zip_bytes([("data.pkl", evil), ("data.pkl", forge.state_dict())])
    refused(content, "ZIP-DUPLICATE")


def test_38_two_data_pkl_in_two_folders(refused, forge, evil):
    content = forge.zip_bytes([("a/data.pkl", forge.state_dict()), ("b/data.pkl", evil)], prefix="")
    refused(content, "ZIP-INCONSISTENT")


def test_38_local_and_central_names_differ(refused, forge, evil):
    content = forge.torch_zip(evil)
    refused(forge.forge_central(content, b"archive/data.pkl", b"archive/data.plk"), "ZIP-INCONSISTENT")


@pytest.mark.parametrize("flag", [0x0001, 0x0020, 0x0040, 0x1000, 0x2000])
def test_38_flag_bits(refused, saved, flag):
    """Encryption and strange flags make some scanners give up while torch goes on."""
    start = struct.unpack("<L", saved[-6:-2])[0]
    for position in (start + 8, 6):
        old = struct.unpack("<H", saved[position : position + 2])[0]
        saved = patched(saved, position, struct.pack("<H", old | flag))
    refused(saved, "ZIP-FEATURE")


def test_38_flags_in_the_directory_only(refused, saved):
    start = struct.unpack("<L", saved[-6:-2])[0]
    refused(patched(saved, start + 8, struct.pack("<H", 0x0809)), "ZIP-FEATURE")
    refused(patched(saved, start + 8, struct.pack("<H", 0x0008)), "ZIP-INCONSISTENT")


def test_38_wrong_checksum(refused, saved):
    """A storage whose bytes were changed, and one whose declared checksum was."""
    where = locals_of(saved)
    offset, name, extra, _ = next(value for key, value in where.items() if key.endswith("data/0"))
    position = offset + 30 + name + extra
    refused(patched(saved, position, b"\x55\x55\x55\x55"), "ZIP-DAMAGED")


def test_38_wrong_descriptor(refused, saved):
    where = locals_of(saved)
    offset, name, extra, size = next(value for key, value in where.items() if key.endswith("data/0"))
    position = offset + 30 + name + extra + size
    assert saved[position : position + 4] == b"PK\x07\x08"
    refused(patched(saved, position + 8, b"\x01\x00\x00\x00"), "ZIP-INCONSISTENT")


@pytest.mark.parametrize("name", ["a\\data.pkl", "archive/./data.pkl", "archive//data.pkl", "C:/data.pkl"])
def test_38_names_that_systems_read_differently(refused, forge, name):
    content = forge.zip_bytes([("data.pkl", forge.state_dict())], prefix="x" * (len(name) - 9))
    content = content.replace(("x" * (len(name) - 9) + "/data.pkl").encode(), name.encode())
    refused(content, "ZIP-NAME")


def test_38_bytes_before_between_and_after(refused, saved, evil):
    refused(evil + saved, "PICKLE-CODE")
    shifted = io.BytesIO(b"PK\x03\x04" + bytes(60) + saved)
    refused(shifted.getvalue(), "ZIP-INCONSISTENT")
    refused(saved + b"trailing", "ZIP-INCONSISTENT")
    refused(saved[:-2] + struct.pack("<H", 4) + b"note", "ZIP-INCONSISTENT")


def test_38_record_that_the_directory_does_not_list(refused, forge, evil):
    full = forge.zip_bytes([("data.pkl", forge.state_dict()), ("hidden.pkl", evil)])
    end = full.rindex(b"PK\x05\x06")
    start = struct.unpack("<L", full[end + 16 : end + 20])[0]
    second = full.index(b"PK\x01\x02", start + 4)
    cut = full[:second] + full[end:]
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, second - start, start, 0)
    refused(cut[: -len(tail)] + tail, "ZIP-INCONSISTENT")


def test_38_overlapping_records(refused, forge):
    """Two entries of the directory that share their bytes: the way to quadratic bombs."""
    full = forge.zip_bytes([("data.pkl", forge.state_dict()), ("data.pk2", forge.state_dict())])
    end = full.rindex(b"PK\x05\x06")
    start = struct.unpack("<L", full[end + 16 : end + 20])[0]
    second = full.index(b"PK\x01\x02", start + 4)
    refused(patched(full, second + 42, struct.pack("<L", 0)), "ZIP-INCONSISTENT")


def test_38_zip64_end_records_that_disagree(refused, forge):
    full = forge.zip_bytes([("data.pkl", forge.state_dict())])
    end = full.rindex(b"PK\x05\x06")
    _, _, _, _, count, size, start, _ = struct.unpack("<4s4H2LH", full[end:])
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    good = full[:end] + wide + locator + full[end:]
    refused(good, "WEIGHTS-NONE")
    bad = good.replace(struct.pack("<2Q", size, start), struct.pack("<2Q", size, start - 1))
    refused(bad, "ZIP-INCONSISTENT")


def test_40_compressed_storage(refused, forge):
    """A gigabyte deflated to a megabyte; here 64 MiB."""
    content = forge.torch_zip(
        forge.state_dict(w=forge.tensor((4096, 4096), (4096, 1), count=1 << 24)),
        {"0": bytes(1 << 26)},
        compress=("data/0",),
    )
    assert len(content) < 100_000
    refused(content, "ZIP-COMPRESSED")


def test_40_unreferenced_bomb(refused, forge):
    content = forge.torch_zip(
        forge.state_dict(w=forge.tensor((2, 2), (2, 1))),
        {"0": bytes(16), "9": bytes(1 << 26)},
        compress=("data/9",),
    )
    refused(content, "ZIP-COMPRESSED")


def test_40_too_many_records(refused, forge):
    content = forge.zip_bytes([(str(index), b"") for index in range(200)])
    refused(content, "WEIGHTS-LIMIT", limits=WeightLimits(zip_records=100))


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "archive/../../x"])
def test_44_zip_slip(refused, forge, tmp_path, name):
    content = forge.zip_bytes([("archive/data.pkl", forge.state_dict()), (name, b"gotcha")], prefix="")
    refused(content, "ZIP-NAME")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", "FILE-EMPTY"),
        (b"PK", "ZIP-DAMAGED"),
        (b"PK\x03\x04", "ZIP-DAMAGED"),
        (b"<!DOCTYPE html><html>login</html>", "FILE-FORMAT"),
        (b"\x1f\x8b\x08\x00", "FILE-FORMAT"),
        (b"\x89HDF\r\n\x1a\n", "FILE-FORMAT"),
        (b"version https://git-lfs.github.com/spec/v1\n", "FILE-FORMAT"),
        (b"\x93NUMPY\x01\x00", "FILE-FORMAT"),
        (bytes(range(256)) * 10, "FILE-FORMAT"),
        (b"hello world\n", "FILE-FORMAT"),
        (b"\x80\x02", "PICKLE-DAMAGED"),
        (b"\x80\x02}.", "WEIGHTS-NONE"),
        (b"\x80\x02K\x01.", "WEIGHTS-NONE"),
    ],
)
def test_48_not_a_model(refused, content, finding):
    refused(content, finding)


def test_48_tar(refused):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO(b""))
    assert "tar archive" in refused(buffer.getvalue(), "FILE-FORMAT")


def test_48_truncated_anywhere(saved, refused):
    for cut in (1, 22, 23, len(saved) // 2, len(saved) - 10):
        refused(saved[:-cut], "ZIP-DAMAGED")


def test_48_legacy_truncated_anywhere(refused):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2, 2)}, buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    refused(content[:-1], "TENSOR-STORAGE")
    refused(content[:-20], "TENSOR-STORAGE")
    refused(content[:40], "PICKLE-DAMAGED")
    refused(content + b"x", "PICKLE-TRAILING")


def test_48_legacy_storage_of_the_wrong_length(refused):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2, 2)}, buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    refused(content[:-24] + struct.pack("<q", 1 << 40) + content[-16:], "TENSOR-STORAGE")


def test_48_nothing_and_folders(tmp_path, refused):
    folder = tmp_path / "model"
    folder.mkdir()
    refused(folder / "none.pt", "WEIGHTS-FILE-MISSING")
    refused(folder, "WEIGHTS-FILE-MISSING")


def test_a_pipe_does_not_hang(tmp_path, refused):
    import os

    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / "m.pt")
    refused(folder / "m.pt", "WEIGHTS-FILE-MISSING", seconds=2)


def test_big_endian(refused, forge):
    records = [("data.pkl", forge.state_dict()), ("byteorder", b"big")]
    assert "big-endian" in refused(forge.zip_bytes(records), "WEIGHTS-FILE-VERSION")


def test_another_archive(refused, forge):
    refused(forge.zip_bytes([("word/document.xml", b"<x/>")], prefix=""), "FILE-FORMAT")


def test_torch_package(refused, forge):
    records = [(".data/extern_modules", b""), ("data.pkl", forge.state_dict())]
    refused(forge.zip_bytes(records), "PICKLE-MODULE")


def test_names_with_colons_and_letters_of_other_scripts_are_fine(save):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(1)}, buffer)
    path = save(buffer.getvalue(), "épo:que=3.pt")
    torch.save({"w": torch.ones(1)}, path)
    assert list(read_weights(path).tensors) == ["w"]
