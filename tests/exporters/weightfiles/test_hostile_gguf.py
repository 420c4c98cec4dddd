"""GGUF files built to mislead a reader: each ends with the documented finding, in bounded time and memory."""

import resource
import struct
import time

import ggufbytes as g
import pytest

from emergraph.errors import EmergraphError
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.reader import check_weights, read_weights

HUGE = 2**60
ONE = struct.pack("<4f", 1, 2, 3, 4)
TENSOR = g.info("fc.weight", (2, 2))
"""What a file of `ONE` says about it."""


def raw(kind, *parts):
    return g.entry("key", kind, b"".join(parts))


def text_of(length):
    return g.text("key") + struct.pack("<IQ", g.STRING, length)


def array(kind, count, rest=b""):
    return raw(g.ARRAY, struct.pack("<IQ", kind, count), rest)


def nested(depth):
    inner = struct.pack("<IQ", g.U8, 1) + b"\x01"
    for _ in range(depth - 1):
        inner = struct.pack("<IQ", g.ARRAY, 1) + inner
    return raw(g.ARRAY, inner)


def one(**options):
    return g.file(infos=[TENSOR], data=ONE, **options)


def with_entry(found, **options):
    return g.file([found], [TENSOR], ONE, **options)


def two(first, second, data, entries=()):
    return g.file(entries, [first, second], data)


CASES = {
    # the first bytes
    "magic alone": (b"GGUF", "GGUF-HEADER"),
    "cut in the version": (one()[:6], "GGUF-HEADER"),
    "cut in the counts": (one()[:19], "GGUF-HEADER"),
    "version 0": (one(version=0), "WEIGHTS-FILE-VERSION"),
    "version 1, whose counts are shorter": (one(version=1), "WEIGHTS-FILE-VERSION"),
    "version 4": (one(version=4), "WEIGHTS-FILE-VERSION"),
    "version of all ones": (one(version=2**32 - 1), "WEIGHTS-FILE-VERSION"),
    "big-endian by its version": (one(version=3 << 24), "WEIGHTS-FILE-VERSION"),
    "big-endian by its magic": (one(magic=b"FUGG"), "WEIGHTS-FILE-VERSION"),
    # counts
    "2^60 tensors": (one(n_tensors=HUGE), "GGUF-HEADER"),
    "2^64 - 1 tensors": (one(n_tensors=2**64 - 1), "GGUF-HEADER"),
    "2^60 keys": (one(n_entries=HUGE), "GGUF-HEADER"),
    "2^64 - 1 keys": (one(n_entries=2**64 - 1), "GGUF-HEADER"),
    "a tensor more than there are": (
        g.file(infos=[TENSOR], data=ONE + bytes(16), n_tensors=2),
        "GGUF-HEADER",
    ),
    "a key more than there are": (one(n_entries=1), "GGUF-HEADER"),
    "a tensor fewer, so that bytes are left": (
        g.file(infos=[TENSOR, g.info("b", (2, 2), 0, 32)], data=ONE + bytes(16) + ONE, n_tensors=1),
        "GGUF-LAYOUT",
    ),
    "no tensors": (g.file([g.entry("a", g.U8, 1)]), "WEIGHTS-NONE"),
    "65,537 keys": (
        g.file([g.entry(str(n), g.U8, 1) for n in range(65_537)], [TENSOR], ONE),
        "WEIGHTS-LIMIT",
    ),
    # texts
    "a key of 2^60 bytes": (g.file([struct.pack("<Q", HUGE) + b"k" * 40]), "GGUF-HEADER"),
    "a key of 2^64 - 1 bytes": (g.file([struct.pack("<Q", 2**64 - 1) + b"k" * 40]), "GGUF-HEADER"),
    "a key that is not UTF-8": (with_entry(g.entry(b"k\xff", g.U8, 1)), "GGUF-HEADER"),
    "a key of half a surrogate pair": (with_entry(g.entry(b"k\xed\xa0\x80", g.U8, 1)), "GGUF-HEADER"),
    "a key twice": (
        g.file([g.entry("k", g.U8, 1), g.entry("k", g.U8, 2)], [TENSOR], ONE),
        "GGUF-DUPLICATE",
    ),
    "a text that is not UTF-8": (with_entry(g.entry("k", g.STRING, b"\xc3\x28")), "GGUF-HEADER"),
    "a text in an overlong form": (with_entry(g.entry("k", g.STRING, b"\xc0\xaf")), "GGUF-HEADER"),
    "a text of 2^60 bytes": (with_entry(text_of(HUGE)), "GGUF-HEADER"),
    "a text that ends behind the file": (with_entry(text_of(400)), "GGUF-HEADER"),
    "a name that is not UTF-8": (g.file(infos=[g.info(b"w\xfe", (2, 2))], data=ONE), "GGUF-HEADER"),
    "a name of 2^60 bytes": (g.file(infos=[struct.pack("<Q", HUGE) + bytes(40)], data=ONE), "GGUF-HEADER"),
    # values of metadata
    "a type that GGUF does not define": (with_entry(raw(13, bytes(8))), "GGUF-HEADER"),
    "a type of all ones": (with_entry(raw(2**32 - 1, bytes(8))), "GGUF-HEADER"),
    "a truth value of 2": (with_entry(raw(g.BOOL, b"\x02")), "GGUF-HEADER"),
    "an array of 2^60 bytes": (with_entry(array(g.U8, HUGE)), "GGUF-HEADER"),
    "an array of 2^60 texts": (with_entry(array(g.STRING, HUGE)), "GGUF-HEADER"),
    "an array of 2^60 arrays": (with_entry(array(g.ARRAY, HUGE)), "GGUF-HEADER"),
    "an array of 2^64 - 1 doubles": (with_entry(array(g.F64, 2**64 - 1)), "GGUF-HEADER"),
    "an array of 2^61 doubles, 2^64 bytes": (with_entry(array(g.F64, 2**61)), "GGUF-HEADER"),
    "an array of no known type": (with_entry(array(99, 1, bytes(8))), "GGUF-HEADER"),
    "an array whose last text is cut": (
        with_entry(array(g.STRING, 2, g.text("a") + struct.pack("<Q", 900))),
        "GGUF-HEADER",
    ),
    "an array with a text that is not UTF-8": (
        with_entry(array(g.STRING, 1, g.text(b"\xff"))),
        "GGUF-HEADER",
    ),
    "arrays five deep": (with_entry(nested(5)), "GGUF-HEADER"),
    "arrays a thousand deep": (with_entry(nested(1000)), "GGUF-HEADER"),
    # alignment
    "alignment 0": (with_entry(g.entry("general.alignment", g.U32, 0)), "GGUF-HEADER"),
    "alignment 24": (with_entry(g.entry("general.alignment", g.U32, 24)), "GGUF-HEADER"),
    "alignment 2^31": (with_entry(g.entry("general.alignment", g.U32, 2**31)), "GGUF-HEADER"),
    "alignment as a text": (with_entry(g.entry("general.alignment", g.STRING, "32")), "GGUF-HEADER"),
    "alignment as a truth value": (with_entry(g.entry("general.alignment", g.BOOL, 1)), "GGUF-HEADER"),
    "alignment beyond the file": (with_entry(g.entry("general.alignment", g.U32, 2**20)), "GGUF-LAYOUT"),
    # shapes and types
    "a tensor without a name": (g.file(infos=[g.info("", (2, 2))], data=ONE), "GGUF-HEADER"),
    "five axes": (g.file(infos=[g.info("w", (1, 1, 1, 2, 2))], data=ONE), "TENSOR-SHAPE"),
    "2^32 - 1 axes": (g.file(infos=[g.info("w", (2, 2), n_dims=2**32 - 1)], data=ONE), "TENSOR-SHAPE"),
    "2^63 rows": (g.file(infos=[g.info("w", (2, 2**63))], data=ONE), "TENSOR-SHAPE"),
    "sizes whose product is 2^64": (g.file(infos=[g.info("w", (2**32, 2**32))], data=ONE), "TENSOR-SHAPE"),
    "sizes beside a zero that overflow": (
        g.file(infos=[g.info("w", (0, 2**62, 2**62))], data=b""),
        "TENSOR-SHAPE",
    ),
    "type 4, which was taken out": (g.file(infos=[g.info("w", (2, 2), 4)], data=ONE), "GGUF-TYPE"),
    "type 5000": (g.file(infos=[g.info("w", (2, 2), 5000)], data=ONE), "GGUF-TYPE"),
    "type of all ones": (g.file(infos=[g.info("w", (2, 2), 2**32 - 1)], data=ONE), "GGUF-TYPE"),
    "rows that are no whole blocks": (
        g.file(infos=[g.info("w", (33, 1), 8)], data=bytes(68)),
        "TENSOR-SHAPE",
    ),
    "blocks of a scalar": (g.file(infos=[g.info("w", (), 12)], data=bytes(144)), "TENSOR-SHAPE"),
    # places
    "a tensor that is cut": (one()[:-1], "GGUF-LAYOUT"),
    "a tensor without its bytes": (g.file(infos=[TENSOR]), "GGUF-LAYOUT"),
    "a tensor that begins behind the file": (
        g.file(infos=[g.info("w", (2, 2), 0, 4096)], data=ONE),
        "GGUF-LAYOUT",
    ),
    "a tensor at 2^64 - 32": (g.file(infos=[g.info("w", (2, 2), 0, 2**64 - 32)], data=ONE), "GGUF-LAYOUT"),
    "a tensor that is not aligned": (
        g.file(infos=[g.info("w", (2, 2), 0, 4)], data=bytes(4) + ONE),
        "GGUF-LAYOUT",
    ),
    "two tensors at one place": (two(TENSOR, g.info("b", (2, 2)), ONE), "GGUF-LAYOUT"),
    "two tensors that overlap": (
        two(g.info("a", (2, 5)), g.info("b", (2, 2), 0, 32), bytes(64)),
        "GGUF-LAYOUT",
    ),
    "a hole between two tensors": (
        two(TENSOR, g.info("b", (2, 2), 0, 64), ONE + bytes(48) + ONE),
        "GGUF-LAYOUT",
    ),
    "bytes behind the last tensor": (one() + bytes(16 + 1), "GGUF-LAYOUT"),
    "a zip archive behind the last tensor": (one() + bytes(16) + b"PK\x03\x04" + bytes(60), "GGUF-LAYOUT"),
    "two tensors of one name": (
        two(TENSOR, g.info("fc.weight", (2, 2), 0, 32), ONE + bytes(16) + ONE),
        "WEIGHTS-NAME-TWICE",
    ),
    # parts
    "a part under a name that does not say so": (
        with_entry(g.entry("split.count", g.U16, 2)),
        "GGUF-SPLIT",
    ),
    "2^16 - 1 parts": (with_entry(g.entry("split.count", g.U16, 65_535)), "WEIGHTS-LIMIT"),
    "a number of parts that is a text": (with_entry(g.entry("split.count", g.STRING, "../2")), "GGUF-SPLIT"),
    "a negative number of parts": (with_entry(g.entry("split.count", g.I32, -2)), "GGUF-SPLIT"),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_files_end_with_their_finding(tmp_path, case):
    """One line, the documented id and exit code, and `check` says the same; in no time and memory."""
    content, expected = CASES[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(EmergraphError) as caught:
        read_weights(path)
    assert str(caught.value).endswith(f"[{expected}]"), caught.value
    assert str(caught.value).startswith("model.gguf: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    (finding,) = check_weights(path)
    assert finding.id == expected
    assert caught.value.exit_code == {"GGUF-DUPLICATE": 4, "WEIGHTS-LIMIT": 6}.get(expected, 3)
    assert time.process_time() - begin < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


@pytest.mark.parametrize("field", ["metadata_entries", "metadata_values", "tensors", "header_bytes"])
def test_limits_hold_on_both_sides(tmp_path, field):
    """A file that needs just as much as a limit is read, one that needs more is refused."""
    path = tmp_path / "m.gguf"
    entries = [g.entry("a", g.ARRAY, (g.STRING, ["x", "y"])), g.entry("b", g.U8, 1)]
    infos = [TENSOR, g.info("b", (2, 2), 0, 32)]
    path.write_bytes(g.file(entries, infos, ONE + bytes(16) + ONE))
    needed = {
        "metadata_entries": 2,
        "metadata_values": 2,
        "tensors": 2,
        "header_bytes": 24 + sum(map(len, (*entries, *infos))),
    }[field]
    read_weights(path, limits=WeightLimits(**{field: needed}))
    with pytest.raises(EmergraphError, match="WEIGHTS-LIMIT"):
        read_weights(path, limits=WeightLimits(**{field: needed - 1}))


def part(number, count, *, name, values=ONE, entries=()):
    found = [g.entry("split.no", g.U16, number), g.entry("split.count", g.U16, count), *entries]
    return g.file(found, [g.info(name, (2, 2))], values)


@pytest.fixture
def split(tmp_path):
    """A file in two parts; returns their paths."""
    paths = [tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    total = [g.entry("split.tensors.count", g.I32, 2)]
    paths[0].write_bytes(part(0, 2, name="a.weight", entries=total))
    paths[1].write_bytes(part(1, 2, name="b.weight"))
    return paths


def test_a_split_file_is_one_file_whichever_part_is_named(split):
    """All parts are read in their order."""
    first, second = (read_weights(path) for path in split)
    assert list(first.tensors) == list(second.tensors) == ["a.weight", "b.weight"]
    assert first.sha256 == second.sha256
    assert first.source == second.source == split[0].name
    assert first.size == sum(path.stat().st_size for path in split)


def spoil_missing(paths):
    paths[1].unlink()


def spoil_link(paths):
    elsewhere = paths[1].parent / "elsewhere"
    elsewhere.mkdir()
    paths[1].rename(elsewhere / "part.gguf")
    paths[1].symlink_to(elsewhere / "part.gguf")


def spoil_order(paths):
    paths[1].write_bytes(part(0, 2, name="b.weight"))


def spoil_count(paths):
    paths[1].write_bytes(part(1, 3, name="b.weight"))


def spoil_whole(paths):
    paths[1].write_bytes(one())


def spoil_twice(paths):
    paths[1].write_bytes(part(1, 2, name="a.weight"))


def spoil_total(paths):
    paths[0].write_bytes(part(0, 2, name="a.weight", entries=[g.entry("split.tensors.count", g.I32, 3)]))


def spoil_format(paths):
    paths[1].write_bytes(b"%PDF-1.7 no model")


SPLITS = {
    spoil_missing: ("SHARD-MISSING", 3),
    spoil_link: ("SHARD-OUTSIDE", 4),
    spoil_order: ("GGUF-SPLIT", 3),
    spoil_count: ("GGUF-SPLIT", 3),
    spoil_whole: ("GGUF-SPLIT", 3),
    spoil_twice: ("SHARD-CONFLICT", 3),
    spoil_total: ("GGUF-SPLIT", 3),
    spoil_format: ("FILE-FORMAT", 3),
}


@pytest.mark.parametrize("spoil", SPLITS)
def test_parts_that_do_not_belong_together(split, spoil):
    """What is missing, leads elsewhere or says something else is refused."""
    spoil(split)
    with pytest.raises(EmergraphError) as caught:
        read_weights(split[0])
    expected, code = SPLITS[spoil]
    assert expected in str(caught.value)
    assert caught.value.exit_code == code


def test_parts_may_be_links_below_a_root(split):
    """As in a download cache."""
    spoil_link(split)
    assert len(read_weights(split[0], root=split[0].parent).tensors) == 2


@pytest.mark.parametrize("align", [1, 8, 32, 4096])
def test_alignments_on_their_right_side(tmp_path, align):
    """A file in any alignment that the format knows is read, padded at its end or not."""
    path = tmp_path / "m.gguf"
    for padding in (0, -len(ONE) % align):
        entries = [g.entry("general.alignment", g.U32, align)]
        path.write_bytes(g.file(entries, [TENSOR], ONE + bytes(padding), align=align))
        assert read_weights(path).tensors["fc.weight"].array().tolist() == [[1, 2], [3, 4]]
