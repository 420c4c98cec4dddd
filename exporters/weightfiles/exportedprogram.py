"""The .pt2 archives of torch.export.save: raw weights and the graph as JSON; nothing else is ever opened.

`torch.export.load` unpickles the example inputs, custom objects and, where the table of weights asks for it,
the weights themselves; each of them can run code (pytorch issue 153410). Here they stay closed.
"""

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.build import Builder
from emergraph.exporters.weightfiles.checkpoint import Contents, add_built
from emergraph.exporters.weightfiles.dtypes import PT2_DTYPES
from emergraph.exporters.weightfiles.jsontext import parse_json
from emergraph.exporters.weightfiles.placeholders import StorageRef, TensorRef
from emergraph.exporters.weightfiles.refuse import Finding, refusal
from emergraph.exporters.weightfiles.torchfiles import archive_prefix, read_torch_zip, refuse_compressed
from emergraph.exporters.weightfiles.zipstrict import StrictZip, open_zip

_OLD_GRAPH = "serialized_exported_program.json"
_OLD_WEIGHTS = ("serialized_state_dict.pt", "serialized_constants.pt")
_STRIDED = 7
"""torch/_export/serde/schema.py, Layout.Strided."""
_CLOSED = ("data/sample_inputs/", "data/aotinductor/", "data/executorch/", "extra/", "archived_inputs/")


def read_exported_program(archive: StrictZip, contents: Contents, *, allow_missing: bool) -> None:
    """Read weights and graphs of an exported program.

    Args:
        archive: The archive.
        contents: Where tensors, graphs and findings go.
        allow_missing: For the pickled state dict of the older format: read tensors next to foreign classes.

    Raises:
        InvalidInputError: malformed tables (PT2-DAMAGED), missing or short weights (TENSOR-STORAGE).
        UnsafeInputError: weights that are pickles (PT2-PICKLE), or tensors outside their storage.
    """
    if _OLD_GRAPH in archive.records:
        _read_old(archive, contents, allow_missing=allow_missing)
        return
    refuse_compressed(archive)
    prefix = archive_prefix(archive)
    closed = []
    for name in archive.records:
        inner = name.split("/", 1)[-1]
        if inner.startswith("models/") and inner.endswith(".json"):
            _read_graph(archive, name, contents)
        elif inner.startswith("data/weights/") and inner.endswith(".json"):
            _read_table(archive, name, f"{prefix}/data/weights/", contents, pickled_is_fatal=True)
        elif inner.startswith("data/constants/") and inner.endswith(".json"):
            _read_table(archive, name, f"{prefix}/data/constants/", contents, pickled_is_fatal=False)
        elif inner.startswith("data/weights/") and inner.endswith(".pt"):
            _read_nested(archive, name, contents, allow_missing=allow_missing)
        elif inner.startswith(_CLOSED) or inner.endswith((".so", ".pt", ".cpp")):
            closed.append(inner)
    if closed:
        listed = ", ".join(printable(name) for name in closed[:3])
        message = f"{len(closed)} records hold pickles or compiled code and were not opened ({listed})"
        contents.findings.append(Finding("PT2-CODE", message))


def _read_old(archive: StrictZip, contents: Contents, *, allow_missing: bool) -> None:
    """The format up to torch 2.7: plain files, the weights as torch.save writes them."""
    _read_graph(archive, _OLD_GRAPH, contents)
    for name in _OLD_WEIGHTS:
        if name in archive.records:
            _read_nested(archive, name, contents, allow_missing=allow_missing)
    if "serialized_example_inputs.pt" in archive.records:
        contents.findings.append(Finding("PT2-CODE", "the example inputs are a pickle and were not opened"))


def _read_nested(archive: StrictZip, name: str, contents: Contents, *, allow_missing: bool) -> None:
    data = archive.stored(name)
    if len(data):
        inner = open_zip(data, printable(name), contents.limits)
        read_torch_zip(inner, contents, allow_missing=allow_missing)


def _read_graph(archive: StrictZip, name: str, contents: Contents) -> None:
    text = archive.unpack(name, contents.limits.json_bytes)
    graph = parse_json(text, printable(name), malformed="PT2-DAMAGED", limit=contents.limits.json_bytes)
    contents.programs[name.split("/", 1)[-1]] = graph


def _read_table(
    archive: StrictZip, record: str, folder: str, contents: Contents, *, pickled_is_fatal: bool
) -> None:
    """Add the tensors of a table: name to record, element type, shape, strides, offset."""
    where = printable(record)
    text = archive.unpack(record, contents.limits.json_bytes)
    table = parse_json(text, where, malformed="PT2-DAMAGED", limit=contents.limits.json_bytes)
    config = table.get("config") if isinstance(table, dict) else None
    if not isinstance(config, dict):
        raise refusal("PT2-DAMAGED", "the table of weights has no config", where)
    leaves: dict[str, TensorRef] = {}
    for name, entry in config.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("path_name"), str):
            raise refusal("PT2-DAMAGED", "an entry of the table names no record", printable(name))
        if entry.get("use_pickle") is not False:
            if pickled_is_fatal:
                message = (
                    "its bytes are a pickle, which torch.export.load would run; export the program again"
                )
                raise refusal("PT2-PICKLE", message, printable(name))
            contents.skip(name, "it is a pickled object, which was not opened", "PT2-CODE")
            continue
        leaves[name] = _reference(archive, folder, name, entry)

    def load(key: str, _: int) -> memoryview:
        return archive.stored(key)

    builder = Builder(load, contents.limits)
    for name, leaf in leaves.items():
        builder.add(name, leaf)
    add_built(builder, contents)


def _reference(archive: StrictZip, folder: str, name: str, entry: dict[str, object]) -> TensorRef:
    where = printable(name)
    path, meta = f"{folder}{entry['path_name']}", entry.get("tensor_meta")
    if path not in archive.records or not isinstance(meta, dict):
        raise refusal("TENSOR-STORAGE", f"record {printable(path)} or its description is missing", where)
    dtype = PT2_DTYPES.get(meta["dtype"]) if type(meta.get("dtype")) is int else None
    if dtype is None or meta.get("layout") != _STRIDED:
        raise refusal("PT2-DAMAGED", "the element type or layout is unknown", where)
    sizes, strides = _integers(meta.get("sizes"), where), _integers(meta.get("strides"), where)
    offset = _integers([meta.get("storage_offset")], where)[0]
    storage = StorageRef(path, "uint8", archive.records[path].size)
    return TensorRef(storage=storage, dtype=dtype, offset=offset, shape=sizes, strides=strides)


def _integers(values: object, where: str) -> tuple[int, ...]:
    """Read a list of {"as_int": n}; symbolic sizes have no place in weights."""
    if not isinstance(values, list):
        raise refusal("PT2-DAMAGED", "sizes, strides and offset must be integers", where)
    found = [value.get("as_int") if isinstance(value, dict) else None for value in values]
    integers = tuple(value for value in found if type(value) is int)
    if len(integers) != len(values):
        raise refusal("PT2-DAMAGED", "sizes, strides and offset must be integers", where)
    return integers
