"""How formats are told apart: functions of a sample that look at a bounded part of it and raise nothing."""

import re
import zlib
from collections.abc import Callable

from emergraph.exporters.formats import pickles
from emergraph.exporters.formats.sample import Sample

Sign = Callable[[Sample], bool]

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OLD_PROGRAM = "serialized_exported_program.json"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MACHO = frozenset(
    bytes.fromhex(magic) for magic in ("feedface", "feedfacf", "cefaedfe", "cffaedfe", "cafebabe", "cafebabf")
)
_SCRIPTS = (".py", ".sh", ".bash", ".js", ".r", ".jl", ".lua", ".rb", ".pl", ".ps1", ".bat")
_PICKLES = (
    ".pkl",
    ".pickle",
    ".p",
    ".pk",
    ".joblib",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".model",
    ".sav",
    ".dat",
)
_CODE_LINE = re.compile(r"^\s*(?:import \w|from [\w.]+ import |def \w+\(|class \w+[(:])", re.MULTILINE)
_ANNEX = re.compile(rb"\.?/?(?:\.\./)*(?:\.git)?/annex/objects/")
_SEPARATORS = (",", ";", "\t")


def starts(*prefixes: bytes) -> Sign:
    """Whether the first bytes are one of these."""
    return lambda sample: sample.head.startswith(prefixes)


def magic(offset: int, sign: bytes) -> Sign:
    """Whether these bytes stand at an offset."""
    return lambda sample: sample.head[offset : offset + len(sign)] == sign


def suffix(*suffixes: str) -> Sign:
    """Whether the name ends in one of these; for formats without a sign of their own."""
    return lambda sample: sample.name.lower().endswith(suffixes)


def zipped(*, has: tuple[str, ...] = (), ends: str = "") -> Sign:
    """Whether a zip archive has one of these records, or one whose name ends so."""

    def sniff(sample: Sample) -> bool:
        if not is_zip(sample):
            return False
        if ends and any(name.endswith(ends) for name in sample.records):
            return True
        return any(name in sample.parts or name in sample.records for name in has)

    return sniff


def is_empty(sample: Sample) -> bool:
    """No bytes."""
    return not sample.head


def anything(_sample: Sample) -> bool:
    """Every file."""
    return True


def is_index(sample: Sample) -> bool:
    """The JSON text that says which part of a sharded file holds which tensor."""
    return sample.name.endswith(".index.json") and is_json(sample)


def is_annex(sample: Sample) -> bool:
    """What git-annex leaves where a file is not there: a path to it."""
    return _ANNEX.match(sample.head) is not None


def is_zip(sample: Sample) -> bool:
    """A zip archive from its first byte on."""
    return sample.head.startswith(_ZIP_STARTS) or (sample.head[:2] == b"PK" and len(sample.head) < 4)


def is_encrypted_zip(sample: Sample) -> bool:
    """A zip archive whose first record says that it is encrypted."""
    return sample.head.startswith(b"PK\x03\x04") and len(sample.head) > 6 and bool(sample.head[6] & 1)


def is_exported_program(sample: Sample) -> bool:
    """What torch.export.save writes, of today's or of the older format."""
    marks = {"archive_format", "models/model.json"}
    return is_zip(sample) and (_OLD_PROGRAM in sample.records or not marks.isdisjoint(sample.parts))


def is_torchscript(sample: Sample) -> bool:
    """What torch.jit.save writes."""
    if not is_zip(sample) or "data.pkl" not in sample.parts:
        return False
    return "constants.pkl" in sample.parts or any(part.startswith("code/") for part in sample.parts)


def is_legacy_torch(sample: Sample) -> bool:
    """The magic number of torch's format before version 1.6."""
    return sample.head.startswith(_LEGACY)


def is_tar(sample: Sample) -> bool:
    """A tar archive: a first header of the right checksum, also where it has no magic."""
    header = sample.head[:512]
    if len(header) < 512 or not header[0]:
        return False
    digits = header[148:156].strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        return False
    return sum(header[:148]) + 8 * 32 + sum(header[156:]) == int(digits, 8)


def is_torch_tar(sample: Sample) -> bool:
    """What torch wrote before 0.1.10: a tar archive of pickles."""
    return is_tar(sample) and sample.head[:100].rstrip(b"\0").lstrip(b"./") in {
        b"sys_info",
        b"pickle",
        b"storages",
        b"tensors",
    }


def is_safetensors(sample: Sample) -> bool:
    """A plausible length, then the opening brace of the header."""
    head, size = sample.head, sample.content.nbytes
    return (
        size >= 9
        and int.from_bytes(head[:8], "little") <= max(size, 1 << 40)
        and head[8:64].lstrip()[:1] == b"{"
    )


def is_object_array(sample: Sample) -> bool:
    """A numpy array whose header says that its elements are Python objects: a pickle follows."""
    described = sample.head[10:1024].partition(b"fortran_order")[0]
    return sample.head.startswith(b"\x93NUMPY") and b"O" in described


def is_bzip2(sample: Sample) -> bool:
    """A bzip2 stream of any block size."""
    return sample.head[:3] == b"BZh" and sample.head[4:10] in {b"1AY&SY", b"\x17rE8P\x90"}


def is_zlib(sample: Sample) -> bool:
    """A zlib stream: the two bytes of its header, and data that unpacks."""
    head = sample.head
    if len(head) < 3 or head[0] & 0x0F != 8 or head[0] >> 4 > 7 or (head[0] << 8 | head[1]) % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, 64))
    except zlib.error:
        return False


def is_riff(kind: bytes) -> Sign:
    """A RIFF file of a kind."""
    return lambda sample: sample.head[:4] == b"RIFF" and sample.head[8:12] == kind


def is_bmp(sample: Sample) -> bool:
    """A bitmap of Windows: its magic, and zeros where they must be."""
    return sample.head[:2] == b"BM" and sample.head[6:10] == bytes(4)


def is_pe(sample: Sample) -> bool:
    """A program of Windows: the header of DOS points to another one."""
    head = sample.head
    at = int.from_bytes(head[60:64], "little")
    return head[:2] == b"MZ" and len(head) >= 64 and bytes(sample.content[at : at + 4]) == b"PE\0\0"


def is_macho(sample: Sample) -> bool:
    """A program of macOS."""
    return sample.head[:4] in _MACHO


def is_pickle(sample: Sample) -> bool:
    """A pickle of any protocol."""
    return pickles.is_pickle(sample.content, expected=sample.suffix in _PICKLES)


def is_html(sample: Sample) -> bool:
    """A web page."""
    text = (sample.text or "").lstrip()[:100].lower()
    return text.startswith(("<!doctype html", "<html", "<head", "<body"))


def is_xml(sample: Sample) -> bool:
    """XML of any kind."""
    return (sample.text or "").lstrip()[:64].startswith(("<?xml", "<"))


def is_openvino(sample: Sample) -> bool:
    """The XML that describes an OpenVINO model."""
    return is_xml(sample) and re.search(r"<net\s[^>]*version=", sample.text or "") is not None


def is_json(sample: Sample) -> bool:
    """JSON text, as far as its beginning tells."""
    text = (sample.text or "").lstrip()
    return re.match(r'\{\s*(?:"|\})|\[\s*(?:["{\[\]\d-]|true|false|null)', text) is not None


def is_script(sample: Sample) -> bool:
    """Source code that is made to be run."""
    text = sample.text
    if text is None:
        return False
    return text.startswith("#!") or sample.suffix in _SCRIPTS or _CODE_LINE.search(text) is not None


def is_csv(sample: Sample) -> bool:
    """Lines of text with one and the same number of separators."""
    lines = [line for line in (sample.text or "").splitlines()[:20] if line.strip()]
    if len(lines) > 2:
        lines.pop()  # it may be cut
    counts = {separator: {line.count(separator) for line in lines} for separator in _SEPARATORS}
    even = any(len(found) == 1 and 0 not in found for found in counts.values())
    return len(lines) > 1 and (even or sample.suffix in {".csv", ".tsv"})


def is_markdown(sample: Sample) -> bool:
    """Text in Markdown, by its name or its front matter."""
    return sample.text is not None and (
        sample.suffix in {".md", ".markdown"} or sample.text.startswith("---\n")
    )


def is_text(sample: Sample) -> bool:
    """Any other text."""
    return sample.text is not None


def is_onnx(sample: Sample) -> bool:
    """The fields of a ModelProto: its IR version, and a graph."""
    return {(1, 0), (7, 2)} <= set(sample.fields)


def is_saved_model(sample: Sample) -> bool:
    """A SavedModel of TensorFlow: a version, then graphs with their descriptions."""
    if sample.name == "saved_model.pb":
        return bool(sample.fields)
    return set(sample.fields) == {(1, 0), (2, 2)} and sample.suffix == ".pb"


def is_graph_def(sample: Sample) -> bool:
    """A frozen graph of TensorFlow: nodes, each of which begins with its name."""
    return sample.suffix == ".pb" and (1, 2) in sample.fields


def is_coreml(sample: Sample) -> bool:
    """The fields of a Core ML model: its version, a description, and a model of one kind."""
    found = set(sample.fields)
    return {(1, 0), (2, 2)} <= found and any(number >= 200 for number, _ in found)


def is_flax(sample: Sample) -> bool:
    """A map in MessagePack, by its name."""
    first = sample.head[0] if sample.head else 0
    return sample.suffix in {".msgpack", ".flax"} and (0x80 <= first <= 0x8F or first in {0xDE, 0xDF})
