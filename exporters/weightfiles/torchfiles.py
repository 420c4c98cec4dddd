"""Files that torch.save and torch.jit.save write: zip archives, the older plain pickles, TorchScript."""

import re
from collections import Counter

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.build import Builder
from emergraph.exporters.weightfiles.checkpoint import add_checkpoint
from emergraph.exporters.weightfiles.dtypes import stored_bytes
from emergraph.exporters.weightfiles.globals import NOT_NEEDED, Policy
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.numpyobjects import StorageRef
from emergraph.exporters.weightfiles.registry import Finding, refusal
from emergraph.exporters.weightfiles.unpickle import Unpickled, unpickle
from emergraph.exporters.weightfiles.weightfile import Contents
from emergraph.exporters.weightfiles.zipstrict import StrictZip

MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of torch's older format."""
PROTOCOL = 1001
_MAX_CODE = 16 << 20
_OPERATION = re.compile(rb"\b(?:torch\.(?!Tensor\b|nn\.)|ops\.[a-z_]\w*\.)([a-zA-Z_]\w*)\s*\(")
_COMPRESSIBLE = re.compile(r"[^/]+/code/.*")


def archive_prefix(archive: StrictZip) -> str:
    """Return the folder that all records of a torch archive lie in.

    Raises:
        UnsafeInputError: records lie in several folders, of which readers pick different ones
            (ZIP-INCONSISTENT).
    """
    prefixes = {name.split("/", 1)[0] for name in archive.records}
    if len(prefixes) != 1:
        shown = ", ".join(sorted(printable(prefix) for prefix in prefixes)[:3])
        raise refusal(
            "ZIP-INCONSISTENT", f"records lie in several folders ({shown}), expected one", archive.where
        )
    return prefixes.pop()


def refuse_compressed(archive: StrictZip) -> None:
    """Refuse compressed records other than code; torch stores everything else as it is.

    Raises:
        UnsafeInputError: a record is compressed (ZIP-COMPRESSED).
    """
    for record in archive.records.values():
        if record.compressed and not _COMPRESSIBLE.fullmatch(record.name):
            message = f"record {printable(record.name)} packs {record.size} bytes into {len(record.data)}"
            raise refusal("ZIP-COMPRESSED", f"{message}; torch never compresses it", archive.where)


def read_torch_zip(archive: StrictZip, contents: Contents, *, allow_missing: bool) -> None:
    """Read a zip archive of torch.save.

    Args:
        archive: The archive.
        contents: Where the tensors go.
        allow_missing: Read tensors next to objects of classes from elsewhere.

    Raises:
        InvalidInputError: damaged, or saved on a big-endian machine.
        UnsafeInputError: see `unpickle` and `Builder`.
    """
    refuse_compressed(archive)
    prefix = archive_prefix(archive)
    order = f"{prefix}/byteorder"
    if order in archive.records and bytes(archive.stored(order)) != b"little":
        raise refusal(
            "WEIGHTS-FILE-VERSION",
            "the file is big-endian; save it on a little-endian machine",
            archive.where,
        )
    _read_pickle(
        archive,
        f"{prefix}/data.pkl",
        f"{prefix}/data/",
        contents,
        Policy(allow_missing=allow_missing, around=NOT_NEEDED),
    )


def read_torchscript(archive: StrictZip, contents: Contents) -> None:
    """Read the weights of a TorchScript archive and list the operations of its code, which is never run.

    The constants come along as `constants.0`, `constants.1`, ...: freezing a module moves its weights there.
    """
    refuse_compressed(archive)
    prefix = archive_prefix(archive)
    policy = Policy(script=True)
    _read_pickle(archive, f"{prefix}/data.pkl", f"{prefix}/data/", contents, policy, quiet=True)
    constants = f"{prefix}/constants.pkl"
    if constants in archive.records:
        folder = f"{prefix}/constants/"
        held = any(name.startswith(folder) for name in archive.records)
        folder = folder if held else f"{prefix}/data/"
        _read_pickle(archive, constants, folder, contents, policy, below="constants", quiet=True)
    operations = _operations(archive)
    contents.metadata["operations"] = dict(sorted(operations.items()))
    message = (
        f"its code calls {sum(operations.values())} operations of {len(operations)} kinds; it is not run"
    )
    contents.findings.append(Finding("TORCHSCRIPT-CODE", message))


def _read_pickle(
    archive: StrictZip,
    record: str,
    folder: str,
    contents: Contents,
    policy: Policy,
    *,
    below: str = "",
    quiet: bool = False,
) -> None:
    data = archive.stored(record)
    where = printable(record)
    pickled = unpickle(data, where, contents.limits, policy=policy)
    if pickled.end != len(data):
        raise refusal(
            "PICKLE-TRAILING", f"{len(data) - pickled.end} bytes follow the end of the pickle", where
        )

    def load(key: str, _: int) -> memoryview:
        if f"{folder}{key}" not in archive.records:
            raise refusal("TENSOR-STORAGE", f"storage {printable(key)} is not in the archive", archive.where)
        return archive.stored(f"{folder}{key}")

    add_checkpoint(pickled, Builder(load, contents.limits), contents, below=below, quiet=quiet)


def _operations(archive: StrictZip) -> Counter[str]:
    """Count the operations that the code calls, by name; the code is read as text."""
    found: Counter[str] = Counter()
    budget = _MAX_CODE
    for record in archive.records.values():
        if not _COMPRESSIBLE.fullmatch(record.name) or not record.name.endswith(".py"):
            continue
        budget -= record.size
        if budget < 0:
            raise refusal("WEIGHTS-LIMIT", f"the code unpacks to more than {_MAX_CODE} bytes", archive.where)
        code = archive.unpack(record.name, _MAX_CODE)
        found.update(match.decode() for match in _OPERATION.findall(code))
    return found


def read_legacy(
    data: memoryview, where: str, contents: Contents, limits: WeightLimits, *, allow_missing: bool
) -> None:
    """Read a file of torch.save before version 1.6: five pickles, then the storages, each after its length.

    Raises:
        InvalidInputError: damaged or of an unknown version.
        UnsafeInputError: see `unpickle` and `Builder`; or bytes after the last storage (PICKLE-TRAILING).
    """
    policy = Policy(allow_missing=allow_missing, around=NOT_NEEDED)
    position = 0
    parts: list[Unpickled] = []
    for _ in range(5):
        parts.append(unpickle(data, where, limits, start=position, policy=policy))
        position = parts[-1].end
    magic, protocol, system, _, keys = (part.root for part in parts)
    if magic != MAGIC or protocol != PROTOCOL or not isinstance(keys, list):
        raise refusal(
            "WEIGHTS-FILE-VERSION", "the file has an unknown version of torch's older format", where
        )
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise refusal(
            "WEIGHTS-FILE-VERSION", "the file is big-endian; save it on a little-endian machine", where
        )
    placed = _place_storages(data, position, keys, parts[3].storages, where)

    def load(key: str, _: int) -> memoryview:
        if key not in placed:
            raise refusal("TENSOR-STORAGE", f"storage {printable(key)} is not in the file", where)
        return placed[key]

    add_checkpoint(parts[3], Builder(load, limits), contents)


def _place_storages(
    data: memoryview, position: int, keys: list[object], declared: dict[str, StorageRef], where: str
) -> dict[str, memoryview]:
    """Find the storages behind the pickles: a 64-bit count and as many elements each, by order of keys."""
    placed: dict[str, memoryview] = {}
    for key in keys:
        if not isinstance(key, str) or key in placed or key not in declared:
            raise refusal(
                "PICKLE-VALUE", "the list of storages names one twice, or one that no tensor uses", where
            )
        storage = declared[key]
        count = storage.count if storage.whole is None else storage.whole
        if int.from_bytes(data[position : position + 8], "little") != count or position + 8 > len(data):
            message = (
                f"storage {printable(key)} does not start with its {count} elements; fetch the file again"
            )
            raise refusal("TENSOR-STORAGE", message, where)
        end = position + 8 + stored_bytes(storage.dtype, count)
        if end > len(data):
            raise refusal(
                "TENSOR-STORAGE", f"the file ends inside storage {printable(key)}; fetch it again", where
            )
        placed[key] = data[position + 8 : end]
        position = end
    if position != len(data):
        raise refusal("PICKLE-TRAILING", f"{len(data) - position} bytes follow the last storage", where)
    return placed
