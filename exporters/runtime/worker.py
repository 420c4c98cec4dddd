"""The child process that runs a model: `python -P -m emergraph.exporters.runtime.worker LIMITS`.

It reads messages on stdin and answers on stdout (see `frames`). It never opens a path that a model names:
weights come as buffers, or as ranges of files that the parent has checked. A model that makes onnxruntime
crash, hang or take too much takes only this process with it.
"""

import ctypes
import json
import os
import resource
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

# onnxruntime has no type annotations
OrtValue = Any
OrtSession = Any

PARENT_CHECK_SECONDS = 1.0
MAX_FILE_BYTES = 1 << 20


def limit_self(memory_bytes: int) -> None:
    """Bound this process before anything large is imported; no core files, no large files."""
    for kind, wanted in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_AS, memory_bytes),
    ):
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(kind, (value, hard))
        except (ValueError, OSError):
            # macOS refuses RLIMIT_AS; the parent's clock still holds
            continue


def leave_with_parent(parent: int) -> None:
    """End this process soon after its parent is gone, even in the middle of a run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Runner:
    """One model at a time, and the runs of it."""

    def __init__(self) -> None:
        import numpy as np
        import onnxruntime as ort

        self.np = np
        self.ort = ort
        ort.disable_telemetry_events()
        ort.set_default_logger_severity(4)
        self.session: OrtSession = None
        self.held: list[Any] = []

    def load(self, header: dict[str, Any], buffers: list[bytearray]) -> dict[str, Any]:
        """Build a session from a light model (buffer 0) and its weights."""
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
        names, values = self._weights(header["weights"], buffers)
        if names:
            options.add_external_initializers(names, values)
        model = bytes(buffers[0])
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return {}

    def _weights(
        self, weights: list[dict[str, Any]], buffers: list[bytearray]
    ) -> tuple[list[str], list[Any]]:
        names, values, maps = [], [], {}
        for weight in weights:
            if weight["path"] is None:
                raw = self.np.frombuffer(buffers[weight["buffer"]], self.np.uint8)
            else:
                path = weight["path"]
                if path not in maps:
                    maps[path] = self._map(path)
                start = weight["offset"]
                raw = maps[path][start : start + weight["nbytes"]]
            if raw.size != weight["nbytes"]:
                raise ValueError(f"weights end early: expected {weight['nbytes']} bytes, found {raw.size}")
            names.append(weight["name"])
            values.append(self._ort_value(raw, weight["type"], weight["dtype"], weight["shape"]))
        return names, values

    def _map(self, path: str) -> "Bytes":
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("weights are not in a regular file")
            return self.np.memmap(file, self.np.uint8, mode="r")

    def _ort_value(self, raw: "Bytes", element_type: int, dtype: str | None, shape: list[int]) -> OrtValue:
        np = self.np
        if dtype is not None:
            array = np.ndarray(tuple(shape), np.dtype(dtype), buffer=raw)
            if not array.flags.aligned or not array.flags.c_contiguous:
                array = array.copy()
            self.held.append(array)
            return self.ort.OrtValue.ortvalue_from_numpy(array)
        value = self.ort.OrtValue.ortvalue_from_shape_and_type(shape, element_type)
        if value.tensor_size_in_bytes() != raw.size:
            raise ValueError(
                f"expected {value.tensor_size_in_bytes()} bytes for shape {shape}, found {raw.size}"
            )
        copied = np.ascontiguousarray(raw)
        ctypes.memmove(value.data_ptr(), copied.ctypes.data, copied.size)
        return value

    def run(self, header: dict[str, Any], buffers: list[bytearray]) -> tuple[dict[str, Any], list[bytes]]:
        """Run the session; tensors come back whole, pooled, or as shape and type only."""
        feeds = {
            feed["name"]: self._ort_value(
                self.np.frombuffer(buffer, self.np.uint8), feed["type"], feed["dtype"], feed["shape"]
            )
            for feed, buffer in zip(header["feeds"], buffers, strict=True)
        }
        kept = len(self.held) - len(feeds)
        fetched = self.session.run_with_ort_values(header["fetch"], feeds)
        del self.held[kept:]
        replies: list[dict[str, Any]] = []
        out: list[bytes] = []
        pooling = header["pool"]
        for name, value in zip(header["fetch"], fetched, strict=True):
            reply = self._reply(value, header["small"], pooling.get(name), out)
            replies.append(reply)
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
            from emergraph.exporters.runtime.pooling import pooled

            means = pooled(value.numpy(), pool["axes"], pool["sample_axis"])
            reply["shape"], reply["pooled"] = list(means.shape), True
            reply["buffer"] = len(out)
            out.append(means.tobytes())
            return reply
        elements = 1
        for size in shape:
            elements *= size
        if elements <= small or (element_type not in FLOATS and elements <= header_limit(small)):
            reply["buffer"] = len(out)
            size = value.tensor_size_in_bytes()
            out.append(ctypes.string_at(value.data_ptr(), size) if size else b"")
        return reply


STRING = 8
FLOATS = frozenset({1, 10, 11, 14, 15, 16, 17, 18, 19, 20, 23, 24})
"""Element types that are not integers or booleans: their large tensors stay here."""


def header_limit(small: int) -> int:
    """Most elements of an integer or boolean tensor that is sent back."""
    return small * 256


def describe(error: Exception) -> dict[str, Any]:
    """An error as a message: its text and whether memory ran out."""
    text = str(error)
    memory = isinstance(error, MemoryError) or "bad_alloc" in text or "allocate memory" in text
    return {"ok": False, "memory": memory, "error": text[:20000], "type": type(error).__name__}


def serve(source: BinaryIO, sink: BinaryIO, max_bytes: int) -> None:
    """Answer messages until the other side closes."""
    from emergraph.exporters.runtime.frames import pack, receive

    def read(count: int) -> bytes:
        data = source.read(count)
        if len(data) != count:
            raise EOFError
        return data

    runner = Runner()
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
    serve(sys.stdin.buffer, sink, int(limits["memory_bytes"]))


if __name__ == "__main__":
    main()
