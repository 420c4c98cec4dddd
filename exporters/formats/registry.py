"""The one table of formats, in the order in which they are tried."""

from collections.abc import Callable

from emergraph.exporters.formats import signs
from emergraph.exporters.formats.format import Format, Inside, Reader
from emergraph.exporters.formats.sample import Sample

_FETCH = "fetch the file again"
_UNPACK = "unpack it, then check and name the model file in it"
_NO_MODEL = "name the model file itself"
_CONVERT = "convert it to ONNX, or save the weights as safetensors"


def _other(
    name: str, title: str, sniff: Callable[[Sample], bool], step: str, inside: Inside = Inside.BYTES
) -> Format:
    return Format(name=name, title=title, sniff=sniff, step=step, inside=inside)


def _weights(
    name: str,
    title: str,
    sniff: Callable[[Sample], bool],
    inside: Inside = Inside.BYTES,
    *,
    step: str = "its weights alone can be read: emergraph export FILE STORE",
) -> Format:
    return Format(name=name, title=title, sniff=sniff, step=step, reader=Reader.WEIGHTS, inside=inside)


_BY_NAME = (
    _other("empty", "an empty file", signs.is_empty, _FETCH),
    _other(
        "distcp",
        "a part of a distributed checkpoint of torch",
        signs.suffix(".distcp"),
        "join the folder: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pt",
        Inside.ZIP,
    ),
    _weights("index", "the index of a sharded file", signs.is_index),
    _other(
        "onnx_data",
        "the values of an ONNX model in a file of their own",
        signs.suffix(".onnx_data", ".onnx.data", ".onnx_data_1"),
        "name the .onnx file beside it",
    ),
)

_POINTERS = (
    _other(
        "lfs",
        "a Git LFS pointer",
        signs.starts(b"version https://git-lfs", b"version https://hawser"),
        "fetch the file that it points to: git lfs pull",
    ),
    _other(
        "annex",
        "a git-annex pointer",
        signs.is_annex,
        "fetch the file that it points to: git annex get FILE",
    ),
)

_ZIPS = (
    _weights(
        "torch_package",
        "a torch.package archive, which is code",
        signs.zipped(has=(".data/extern_modules",)),
        Inside.ZIP,
        step="save only the weights, as a state dict",
    ),
    _weights("exported_program", "an exported program of torch", signs.is_exported_program, Inside.ZIP),
    _weights("torchscript", "a TorchScript archive", signs.is_torchscript, Inside.ZIP),
    _weights("torch_zip", "a PyTorch file", signs.zipped(has=("data.pkl",)), Inside.ZIP),
    _weights("npz", "numpy arrays (.npz)", signs.zipped(ends=".npy"), Inside.ZIP),
    _other(
        "keras",
        "a Keras model, whose layers may hold Python code",
        signs.zipped(has=("model.weights.h5",)),
        _CONVERT,
        Inside.ZIP,
    ),
    _other(
        "mlpackage",
        "a Core ML package",
        signs.zipped(ends=".mlmodel"),
        "emergraph reads the ONNX or torch model that it was made from",
        Inside.ZIP,
    ),
    _other(
        "encrypted_zip",
        "an encrypted zip archive",
        signs.is_encrypted_zip,
        "unpack it with its password, then check what is in it",
        Inside.ZIP,
    ),
    _weights("zip", "a zip archive of something else", signs.is_zip, Inside.ZIP, step=_UNPACK),
)

_PICKLES = (
    _weights("legacy_torch", "a PyTorch file of the older format", signs.is_legacy_torch, Inside.PICKLE),
    _other(
        "tar_torch",
        "a tar archive, the oldest format of torch",
        signs.is_torch_tar,
        "load it with the torch version that wrote it and save it again",
        Inside.TAR,
    ),
    _other("tar", "a tar archive", signs.is_tar, _UNPACK, Inside.TAR),
)

_MODELS = (
    Format(
        name="store",
        title="a DuckDB store",
        step="look into it with: emergraph info FILE",
        sniff=signs.magic(8, b"DUCK"),
        reader=Reader.STORE,
    ),
    _other(
        "npy_objects",
        "a numpy array of Python objects, which is a pickle",
        signs.is_object_array,
        "save plain numbers as npz",
        Inside.ARRAY,
    ),
    _other(
        "npy", "a single numpy array (.npy)", signs.starts(b"\x93NUMPY"), "save it as npz", Inside.NUMBERS
    ),
    _other(
        "hdf5",
        "an HDF5 file (Keras?)",
        signs.starts(b"\x89HDF"),
        "convert the model to ONNX, or save the weights as safetensors or npz",
    ),
    _weights("gguf", "a GGUF file (llama.cpp)", signs.starts(b"GGUF", b"FUGG")),
    _other(
        "ggml",
        "a GGML file (llama.cpp)",
        signs.starts(b"lmgg", b"tjgg", b"algg", b"fmgg", b"ggml", b"ggjt", b"ggla", b"ggmf"),
        "name the safetensors or ONNX file that it was made from",
    ),
    _other(
        "ort", "an ORT-format model", signs.magic(4, b"ORTM"), "name the .onnx file that it was made from"
    ),
    _other(
        "tflite",
        "a TFLite model",
        signs.magic(4, b"TFL3"),
        "convert it to ONNX: python -m tf2onnx.convert --tflite FILE --output model.onnx",
    ),
    _weights("safetensors", "a safetensors file", signs.is_safetensors),
)

_ARCHIVES = (
    _other("gzip", "a gzip-compressed file", signs.starts(b"\x1f\x8b"), "unpack it first", Inside.STREAM),
    _other("bzip2", "a bzip2-compressed file", signs.is_bzip2, "unpack it first", Inside.STREAM),
    _other("xz", "an xz-compressed file", signs.starts(b"\xfd7zXZ\0"), "unpack it first", Inside.STREAM),
    _other("zlib", "a zlib-compressed file (joblib?)", signs.is_zlib, "save plain arrays", Inside.STREAM),
    _other("zstd", "a zstd-compressed file", signs.starts(b"\x28\xb5\x2f\xfd"), "unpack it first"),
    _other("lz4", "an lz4-compressed file", signs.starts(b"\x04\x22\x4d\x18"), "unpack it first"),
    _other("7z", "a 7z archive", signs.starts(b"7z\xbc\xaf\x27\x1c"), _UNPACK),
    _other("rar", "a RAR archive", signs.starts(b"Rar!\x1a\x07"), _UNPACK),
)

_OTHERS = (
    _other("parquet", "a Parquet file", signs.starts(b"PAR1"), _NO_MODEL),
    _other("arrow", "an Arrow file", signs.starts(b"ARROW1"), _NO_MODEL),
    _other("sqlite", "an SQLite database", signs.starts(b"SQLite format 3\0"), _NO_MODEL),
    _other("png", "a PNG image", signs.starts(b"\x89PNG\r\n\x1a\n"), _NO_MODEL),
    _other("jpeg", "a JPEG image", signs.starts(b"\xff\xd8\xff"), _NO_MODEL),
    _other("gif", "a GIF image", signs.starts(b"GIF87a", b"GIF89a"), _NO_MODEL),
    _other("webp", "a WebP image", signs.is_riff(b"WEBP"), _NO_MODEL),
    _other("wav", "a WAV sound", signs.is_riff(b"WAVE"), _NO_MODEL),
    _other("bmp", "a BMP image", signs.is_bmp, _NO_MODEL),
    _other("tiff", "a TIFF image", signs.starts(b"II*\0", b"MM\0*"), _NO_MODEL),
    _other("pdf", "a PDF document", signs.starts(b"%PDF-"), _NO_MODEL),
    _other("elf", "a program or library (ELF)", signs.starts(b"\x7fELF"), "do not run it; " + _NO_MODEL),
    _other("pe", "a program or library of Windows", signs.is_pe, "do not run it; " + _NO_MODEL),
    _other("macho", "a program or library of macOS", signs.is_macho, "do not run it; " + _NO_MODEL),
)

_PICKLE = _weights("pickle", "a pickle", signs.is_pickle, Inside.PICKLE)

_TEXTS = (
    _other("html", "a web page", signs.is_html, "the download may be a login page: " + _FETCH),
    _other("openvino", "an OpenVINO model", signs.is_openvino, "name the ONNX file that it was made from"),
    _other("xml", "XML", signs.is_xml, _NO_MODEL),
    _other("json", "JSON text", signs.is_json, _NO_MODEL),
    _other("script", "a script", signs.is_script, "read it before you run it; " + _NO_MODEL),
    _other("csv", "a table in text (CSV)", signs.is_csv, _NO_MODEL),
    _other("markdown", "a text in Markdown", signs.is_markdown, _NO_MODEL),
    _other("text", "text", signs.is_text, _NO_MODEL),
)

_MESSAGES = (
    _other("saved_model", "a TensorFlow SavedModel", signs.is_saved_model, _CONVERT),
    _other(
        "coreml", "a Core ML model", signs.is_coreml, "name the ONNX or torch model that it was made from"
    ),
    Format(
        name="onnx",
        title="an ONNX model",
        step="name it to a command that reads ONNX: emergraph export FILE STORE",
        sniff=signs.is_onnx,
        reader=Reader.ONNX,
    ),
    _other("graph_def", "a frozen TensorFlow graph", signs.is_graph_def, _CONVERT),
    _other("msgpack", "a MessagePack file (Flax?)", signs.is_flax, "save the weights as safetensors"),
)

UNKNOWN = _other(
    "unknown",
    "bytes of no known format (damaged, encrypted, or values without a description)",
    signs.anything,
    _FETCH + ", or name the model file itself",
)
"""Where no other format fits."""

FORMATS: tuple[Format, ...] = (
    *_BY_NAME,
    *_POINTERS,
    *_ZIPS,
    *_PICKLES,
    *_MODELS,
    *_ARCHIVES,
    *_OTHERS,
    _PICKLE,
    *_TEXTS,
    *_MESSAGES,
    UNKNOWN,
)
"""All formats; the first whose `sniff` says yes is what a file is."""

_ONNX_NAMES = (".onnx",)


def format_of(name: str, content: memoryview) -> Format:
    """Say what a file is.

    A file named `.onnx` whose bytes are of no known format is a damaged ONNX model, which its reader
    describes better than the table can.

    Args:
        name: Its name without folders; it decides where the bytes do not.
        content: Its bytes, of which a bounded part is looked at.
    """
    sample = Sample(name, content)
    found = next(known for known in FORMATS if known.sniff(sample))
    if found is UNKNOWN and sample.suffix in _ONNX_NAMES:
        return next(known for known in FORMATS if known.reader is Reader.ONNX)
    return found
