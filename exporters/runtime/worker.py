"""The child process that runs a model: `python -P -m emergraph.exporters.runtime.worker LIMITS`.

It reads messages on stdin and answers on stdout (see `frames`). It never opens a path that a model names:
weights come as buffers, or as ranges of files that the parent has checked. A model that makes onnxruntime
crash, hang or take too much takes only this process with it.
"""

import ctypes
import json
import os
import resource
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from emergraph.memory import bound, ran_out_of_memory
from emergraph.paths import open_descriptor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Bytes = NDArray[np.uint8]

# onnxruntime has no type annotations
OrtValue = Any
OrtSession = Any

PARENT_CHECK_SECONDS = 1.0
MAX_FILE_BYTES = 1 << 20


def limit_self(memory_bytes: int) -> None:
    """Bound this process before anything large is imported; no core files, no large files."""
    bound(memory_bytes)
    for kind, wanted in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, MAX_FILE_BYTES)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def leave_with_parent(parent: int) -> None:
    """End this process soon after its parent is gone, even in the middle of a run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class MappedWeights:
    """A file with weights: mapped where they are aligned, read where they are not."""

    def __init__(self, path: str) -> None:
        import numpy as np

        self.np = np
        self.file = os.fdopen(open_descriptor(path, follow=False)[0], "rb", buffering=0)
        self.mapped: Bytes = np.memmap(self.file, np.uint8, mode="r")

    def bytes_at(self, offset: int, count: int, dtype: str | None) -> "Bytes":
        """The bytes of one tensor; a mapped and then copied tensor would take its size twice."""
        np = self.np
        if dtype is None or offset % np.dtype(dtype).itemsize == 0:
            mapped: Bytes = self.mapped[offset : offset + count]
            return mapped
        found: Bytes = np.empty(count, np.uint8)
        view, filled = found.data, 0
        while filled < count:
            got = os.preadv(self.file.fileno(), [view[filled:]], offset + filled)
            if got == 0:
                break
            filled += got
        return found[:filled]


class Runner:
    """One model at a time, and the runs of it."""

    def __init__(self) -> None:
        import numpy as np

        # everything is imported before the folder changes: the search path may be relative
        from emergraph.exporters.runtime import pooling, singles
        from emergraph.exporters.runtime.engine import onnxruntime

        self.singles = singles
        self.pooling = pooling
        self.np = np
        self.ort = onnxruntime()
        self.session: OrtSession = None
        self.kept: dict[str, OrtValue] = {}
        self.held: list[Any] = []

    def load(self, header: dict[str, Any], buffers: list[memoryview]) -> dict[str, Any]:
        """Build a session from a weightless model (buffer 0) and its weights."""
        ort = self.ort
        self.session = None
        self.held = []
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = int(header["threads"])
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # an arena keeps what it once took, and intermediates that are outputs are never reused
        options.enable_cpu_mem_arena = bool(header["arena"])
        options.add_session_config_entry("session.disable_prepacking", "0" if header["prepack"] else "1")
        # spinning threads would take the cores from the parent between runs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        arrays, packed = self._weights(header["weights"], buffers)
        values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        for name, value in values.items():
            # makes no copy, and so wants the value kept alive
            options.add_initializer(name, value)
        if packed:
            # numpy has no arrays for these types; onnxruntime copies them, and wants all the others as well
            options.add_external_initializers(list(values), list(values.values()))
            sizes = [raw.size for raw in packed.values()]
            options.add_external_initializers_from_files_in_memory(list(packed), list(packed.values()), sizes)
        model = bytes(buffers[0])
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.held = [options, values]
        return {}

    def _weights(
        self, weights: list[dict[str, Any]], buffers: list[memoryview]
    ) -> tuple[dict[str, "Array"], dict[str, "Bytes"]]:
        """Weights as arrays, and those of types without arrays as bytes, by name."""
        arrays: dict[str, Array] = {}
        packed: dict[str, Bytes] = {}
        files: dict[str, MappedWeights] = {}
        for weight in weights:
            name, dtype, path = weight["name"], weight["dtype"], weight["path"]
            if path is None:
                raw = self.np.frombuffer(buffers[weight["buffer"]], self.np.uint8)
            else:
                if path not in files:
                    files[path] = MappedWeights(path)
                raw = files[path].bytes_at(weight["offset"], weight["nbytes"], dtype)
            if raw.size != weight["nbytes"]:
                raise ValueError(f"weights end early: expected {weight['nbytes']} bytes, found {raw.size}")
            if weight["replaced"]:
                arrays[name] = self.singles.single_bytes(raw, weight["type"]).reshape(weight["shape"])
            elif dtype is None:
                packed[name] = raw
            else:
                arrays[name] = self._array(raw, dtype, weight["shape"])
        return arrays, packed

    def _array(self, raw: "Bytes", dtype: str, shape: list[int]) -> "Array":
        array = self.np.ndarray(tuple(shape), self.np.dtype(dtype), buffer=raw)
        return array if array.flags.aligned else array.copy()

    def run(self, header: dict[str, Any], buffers: list[memoryview]) -> tuple[dict[str, Any], list[bytes]]:
        """Run the session; tensors come back whole, pooled, or as shape and type only."""
        arrays, feeds = [], {}
        for feed, buffer in zip(header["feeds"], buffers, strict=True):
            raw = self.np.frombuffer(buffer, self.np.uint8)
            if feed["dtype"] is None:
                # a type of one byte that numpy has no name for
                value = raw.reshape(feed["shape"])
                feeds[feed["name"]] = self.ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
                    value, feed["type"]
                )
            else:
                value = self._array(raw, feed["dtype"], feed["shape"])
                feeds[feed["name"]] = self.ort.OrtValue.ortvalue_from_numpy(value)
            arrays.append(value)
        feeds.update({slot: self.kept[key] for slot, key in header["held"].items()})
        fetched = self.session.run_with_ort_values(header["fetch"], feeds)
        by_slot = dict(zip(header["fetch"], fetched, strict=True))
        self.kept = {key: value for key, value in self.kept.items() if key not in header["drop"]}
        self.kept.update({key: by_slot[slot] for slot, key in header["keep"].items()})
        replies: list[dict[str, Any]] = []
        out: list[bytes] = []
        pooling = header["pool"]
        for name, value in zip(header["fetch"], fetched, strict=True):
            replies.append(self._reply(value, header["small"], pooling.get(name), out))
        return {"values": replies}, out

    def _reply(
        self, value: OrtValue, small: int, pool: dict[str, Any] | None, out: list[bytes]
    ) -> dict[str, Any]:
        if not value.has_value() or not value.is_tensor():
            return {"kind": value.data_type(), "type": 0, "shape": None, "buffer": None}
        shape, element_type = list(value.shape()), value.element_type()
        reply = {"kind": "tensor", "type": element_type, "shape": shape, "buffer": None}
        if element_type == STRING:
            return reply
        if pool is not None:
            where = self.pooling.SampleAxis(*pool["where"]) if pool["where"] is not None else None
            codes = self.pooling.Codes(*pool["codes"]) if pool["codes"] is not None else None
            found = self.pooling.pooled(value.numpy(), pool["axes"], where, pool["n_samples"], codes)
            numbers = found.packed()
            reply["pooled"], reply["positions"] = list(numbers.shape), found.n_positions
            reply["buffer"] = len(out)
            out.append(numbers.tobytes())
            return reply
        elements = 1
        for size in shape:
            elements *= size
        size = value.tensor_size_in_bytes()
        fits = elements <= MAX_INTEGERS and size <= MAX_REPLY_BYTES - sum(map(len, out))
        if elements <= small or (small and element_type not in FLOATS and fits):
            reply["buffer"] = len(out)
            out.append(ctypes.string_at(value.data_ptr(), size) if size else b"")
        return reply


STRING = 8
FLOATS = frozenset({1, 10, 11, 14, 15, 16, 17, 18, 19, 20, 23, 24})
"""Element types that are not integers or booleans: their large tensors stay here."""
MAX_INTEGERS = 1 << 24
"""Most elements of an integer or boolean tensor that is sent back."""
MAX_REPLY_BYTES = 1 << 29
"""Bytes of one reply beyond which only small tensors are added to it."""


def describe(error: Exception) -> dict[str, Any]:
    """An error as a message: its text and whether memory ran out."""
    memory = ran_out_of_memory(error)
    return {"ok": False, "memory": memory, "error": str(error)[:20000], "type": type(error).__name__}


def serve(source: BinaryIO, sink: BinaryIO, max_bytes: int, folder: str) -> None:
    """Answer messages until the other side closes; `folder` holds nothing but the placeholder."""
    from emergraph.exporters.runtime.frames import exact_reader, pack, receive

    runner = Runner()
    os.chdir(folder)

    read = exact_reader(source)
    while True:
        try:
            header, buffers = receive(read, max_bytes)
        except EOFError:
            return
        out: list[bytes] = []
        try:
            if header["command"] == "load":
                reply = runner.load(header, buffers)
            else:
                reply, out = runner.run(header, buffers)
            reply["ok"] = True
        except Exception as error:  # noqa: BLE001 - onnxruntime raises many kinds, and all go to the parent
            reply, out = describe(error), []
        for piece in pack(reply, out):
            sink.write(piece)
        sink.flush()


def main() -> None:
    """Set the limits from the command line and serve."""
    limits = json.loads(sys.argv[1])
    limit_self(int(limits["memory_bytes"]))
    leave_with_parent(int(limits["parent"]))
    # whatever a library prints must not land in the protocol
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, sink, int(limits["memory_bytes"]), limits["folder"])


if __name__ == "__main__":
    main()
