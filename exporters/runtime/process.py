"""The parent's side of the child process that runs a model."""

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.onnxfile.decoding import elements_from_codes, unpack_bits
from emergraph.exporters.onnxfile.dtypes import ELEMENT_TYPES, PLAIN, element_type_of, numpy_dtype
from emergraph.exporters.runtime.assembly import PLACEHOLDER, Assembly, weight_messages
from emergraph.exporters.runtime.frames import Buffer, FrameError, pack, receive
from emergraph.exporters.runtime.limits import RunLimits, too_large, too_slow
from emergraph.exporters.runtime.pooling import Codes, Pooled, SampleAxis
from emergraph.exporters.runtime.refusals import (
    LACKS_KERNEL,
    ModelRefusedError,
    one_line,
    unsupported_in,
    with_names,
)
from emergraph.exporters.runtime.widening import as_run
from emergraph.leftovers import Scratch
from emergraph.memory import OUT_OF_MEMORY
from emergraph.processes import CHECK_SECONDS, held_memory

SMALL_ELEMENTS = 65_536
"""Tensors up to this many elements come back with their values."""

EVERYTHING = 1 << 62
"""As `small`: all tensors come back with their values, whatever their size."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """One tensor that a run gave back."""

    kind: str
    """"tensor", or onnxruntime's name of another kind of value."""
    shape: tuple[int, ...] | None
    """Of the tensor itself, also where it was pooled."""
    element_type: int
    """ONNX element type; 0 for anything that is not a tensor."""
    values: NDArray[np.generic] | None
    """The elements; None where the values stayed in the child."""
    pooled: Pooled | None = None
    """What was asked for with `Pooling`."""


@dataclass(frozen=True)
class Pooling:
    """Ask for the statistics of a tensor over everything but samples and units."""

    unit_axes: tuple[int, ...]
    where: SampleAxis | None = None
    """None: the tensor belongs to one sample as a whole."""
    n_samples: int = 1
    codes: Codes | None = None
    """What the values stand for, where they are codes."""


@dataclass(frozen=True)
class HandOver:
    """Tensors, by name, that pass between runs without leaving the child."""

    take: tuple[str, ...] = ()
    """Kept by an earlier run, and fed to this one."""
    keep: tuple[str, ...] = ()
    """Fetched by this run, and kept for later ones."""
    drop: tuple[str, ...] = ()
    """No longer needed after this run."""


class ModelProcess:
    """A child process that runs one model at a time, under limits of time and memory.

    Example:
        >>> with ModelProcess(RunLimits()) as process:  # doctest: +SKIP
        ...     process.load(assembly)
        ...     process.run({"x": x}, ["y"])["y"].shape
    """

    def __init__(self, limits: RunLimits) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.wall_seconds
        self._assembly: Assembly | None = None
        self._many_runs = False
        self.in_single = False
        """Whether float64 runs as float32, since an operation has no float64 kernel (see `widening`)."""
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = Scratch()
        (self._scratch.path / PLACEHOLDER).touch()
        self._errors = (self._scratch.path / "errors").open("w+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def seconds_left(self) -> float:
        """Seconds until the limit on wall time is hit."""
        return self._deadline - time.monotonic()

    def renew(self, seconds: float | None = None) -> None:
        """Restart the limit on wall time: the child is kept for more work.

        Args:
            seconds: What is left of the limit; by default all of it.
        """
        self._deadline = time.monotonic() + (self._limits.wall_seconds if seconds is None else seconds)

    def close(self) -> None:
        """End the child."""
        self.restart()
        self._errors.close()
        self._scratch.close()

    def restart(self) -> None:
        """End the child; the next load starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def load(self, assembly: Assembly, *, many_runs: bool = False) -> None:
        """Load a model; the one loaded before is forgotten.

        Args:
            assembly: The model.
            many_runs: Let onnxruntime keep rearranged copies of weights and the memory of earlier runs:
                faster over many runs, up to twice the memory of the weights.

        Raises:
            ModelRefusedError: onnxruntime does not take the model.
            InvalidInputError: onnxruntime crashed.
            LimitError: A limit was hit.
        """
        self._many_runs = many_runs
        if self.in_single and assembly.in_single is not None:
            assembly = assembly.in_single()
        try:
            self._load(assembly, many_runs=many_runs)
        except ModelRefusedError as error:
            if assembly.in_single is None or not LACKS_KERNEL.search(str(error)):
                raise
            # what is refused in float32, too, is what has no kernel at all
            self._load(assembly.in_single(), many_runs=many_runs)
            self.in_single = True

    def _load(self, assembly: Assembly, *, many_runs: bool) -> None:
        messages, buffers = weight_messages(assembly.weights, 1)
        self._assembly = assembly
        header: dict[str, object] = {
            "command": "load",
            "weights": messages,
            "threads": self._limits.threads,
            "prepack": many_runs,
            "arena": many_runs,
        }
        self._ask(header, [assembly.model, *buffers], "loading")

    def run(
        self,
        feeds: Mapping[str, NDArray[np.generic]],
        fetch: Sequence[str],
        *,
        pooling: Mapping[str, Pooling] | None = None,
        small: int = SMALL_ELEMENTS,
        hand_over: HandOver | None = None,
    ) -> dict[str, Fetched]:
        """Run the loaded model.

        Args:
            feeds: Input arrays by flat name.
            fetch: Flat names of the tensors to give back.
            pooling: Tensors of which only statistics over everything but samples and units are wanted.
            small: Tensors of at most this many elements, and integer tensors, come back with their values.
            hand_over: Tensors that stay in the child from one loaded model to the next.

        Raises:
            ModelRefusedError: onnxruntime does not take these inputs.
            InvalidInputError: onnxruntime crashed.
            LimitError: A limit was hit.
        """
        assembly = self._assembly
        if assembly is None:
            raise RuntimeError("load a model first")
        rest = (feeds, fetch, pooling or {}, small, hand_over or HandOver())
        try:
            return self._run(assembly, *rest)
        except ModelRefusedError as error:
            if assembly.in_single is None or not LACKS_KERNEL.search(str(error)):
                raise
        self.in_single = True
        assembly = assembly.in_single()
        self._load(assembly, many_runs=self._many_runs)
        return self._run(assembly, *rest)

    def _run(
        self,
        assembly: Assembly,
        feeds: Mapping[str, NDArray[np.generic]],
        fetch: Sequence[str],
        pooling: Mapping[str, Pooling],
        small: int,
        over: HandOver,
    ) -> dict[str, Fetched]:
        slots = assembly.slots
        arrays = [_sendable(array, assembly.replaced) for array in feeds.values()]
        header: dict[str, object] = {
            "command": "run",
            "feeds": [_feed(slots[name], array) for name, array in zip(feeds, arrays, strict=True)],
            "fetch": [slots[name] for name in fetch],
            "small": small,
            "pool": {
                slots[name]: {
                    "axes": list(pool.unit_axes),
                    "where": None if pool.where is None else [pool.where.axis, pool.where.innermost],
                    "n_samples": pool.n_samples,
                    "codes": None if pool.codes is None else [pool.codes.scale, pool.codes.zero],
                }
                for name, pool in pooling.items()
            },
        }
        header["held"] = {slots[name]: name for name in over.take}
        header["keep"] = {slots[name]: name for name in over.keep}
        header["drop"] = list(over.drop)
        buffers: list[Buffer] = [array.reshape(-1).view(np.uint8).data for array in arrays]
        reply, received = self._ask(header, buffers, "running")
        values: Any = reply["values"]
        return {name: _fetched(value, received) for name, value in zip(fetch, values, strict=True)}

    def _start(self) -> subprocess.Popen[bytes]:
        limits = {
            "memory_bytes": self._limits.memory_bytes,
            "parent": os.getpid(),
            "folder": os.fspath(self._scratch.path),
        }
        # -P: a model's folder may be the current one, and must not be where modules are imported from
        command = [sys.executable, "-P", "-m", "emergraph.exporters.runtime.worker", json.dumps(limits)]
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module, no word from outside
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            # the child's numpy only moves bytes; a pool of its threads would take address space
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def _ask(
        self, header: dict[str, object], buffers: Sequence[Buffer], doing: str
    ) -> tuple[dict[str, object], list[memoryview]]:
        if self._process is None:
            self._process = self._start()
        try:
            for piece in pack(header, buffers):
                self._write(self._process, memoryview(piece), doing)
            process = self._process
            reply, received = receive(lambda n: self._read(process, n, doing), self._limits.memory_bytes)
        except (BrokenPipeError, EOFError, FrameError) as error:
            raise self._death(doing) from error
        self._look(process, doing)  # at least once, however soon it answered
        if not reply["ok"]:
            raise self._refusal(reply, doing)
        return reply, received

    def _write(self, process: subprocess.Popen[bytes], data: memoryview, doing: str) -> None:
        if process.stdin is None:
            raise EOFError
        descriptor = process.stdin.fileno()
        os.set_blocking(descriptor, False)
        while data:
            self._wait(descriptor, selectors.EVENT_WRITE, doing)
            data = data[os.write(descriptor, data[:_CHUNK]) :]

    def _read(self, process: subprocess.Popen[bytes], count: int, doing: str) -> bytearray:
        if process.stdout is None:
            raise EOFError
        descriptor = process.stdout.fileno()
        found = bytearray(count)
        view, filled = memoryview(found), 0
        while filled < count:
            self._wait(descriptor, selectors.EVENT_READ, doing)
            got = os.readv(descriptor, [view[filled : filled + _CHUNK]])
            if got == 0:
                raise EOFError
            filled += got
        return found

    def _wait(self, descriptor: int, event: int, doing: str) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            while self.seconds_left > 0:
                if selector.select(min(self.seconds_left, CHECK_SECONDS)):
                    return
                if self._process is not None:
                    self._look(self._process, doing)
        self.restart()
        raise too_slow(f"{doing} the model", self._limits)

    def _look(self, process: subprocess.Popen[bytes], doing: str) -> None:
        held = held_memory(process.pid)
        if held > self._limits.memory_bytes:
            self.restart()
            raise self._memory(doing, held)

    def _death(self, doing: str) -> InvalidInputError | LimitError:
        """The error for a child that is gone."""
        process, self._process = self._process, None
        code = None
        if process is not None:
            # its end of the pipes is closed, so it has ended or is about to
            code = process.wait()
            _end(process)
        if code == -signal.SIGKILL:
            return LimitError(f"{doing} the model was killed by the system, probably because memory ran out")
        self._errors.seek(0)
        lines = self._errors.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        if OUT_OF_MEMORY.search("\n".join(lines)):
            return self._memory(doing)
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return InvalidInputError(
                f"{doing} the model crashed onnxruntime ({name}); nothing was changed. "
                "Convert the model with another opset, or report it to onnxruntime"
            )
        reason = one_line(lines[-1]) if lines else f"exit code {code}"
        return InvalidInputError(f"the process for {doing} the model ended: {reason}")

    def _memory(self, doing: str, held: int = 0) -> LimitError:
        return too_large(f"{doing} the model", self._limits, held)

    def _refusal(self, reply: dict[str, object], doing: str) -> InvalidInputError | LimitError:
        if reply["memory"]:
            return self._memory(doing)
        text = str(reply["error"])
        nodes = self._assembly.nodes if self._assembly is not None else {}
        slots = self._assembly.slots if self._assembly is not None else {}
        named = with_names(text, {slot: name for name, slot in slots.items()} | dict(nodes))
        error = ModelRefusedError(f"{doing} the model failed in onnxruntime: {one_line(named)}")
        error.unsupported = unsupported_in(text, nodes)
        return error


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _sendable(array: NDArray[np.generic], replaced: AbstractSet[int]) -> NDArray[np.generic]:
    """The array in C order and in the type that the model runs in."""
    return np.ascontiguousarray(as_run(array, replaced)).reshape(array.shape)


def _feed(slot: str, array: NDArray[np.generic]) -> dict[str, object]:
    element_type = element_type_of(array.dtype)
    if element_type is None:
        raise InvalidInputError(f"arrays of type {array.dtype} cannot be given to a model")
    return {
        "name": slot,
        "type": element_type,
        "dtype": PLAIN.get(element_type),
        "shape": list(array.shape),
    }


def _fetched(value: dict[str, Any], buffers: list[memoryview]) -> Fetched:
    shape = None if value["shape"] is None else tuple(int(size) for size in value["shape"])
    element_type = int(value["type"])
    dtype, extent = numpy_dtype(element_type), shape
    if "pooled" in value:
        numbers = np.frombuffer(buffers[value["buffer"]], np.float64).reshape(value["pooled"]).copy()
        pooled = Pooled.unpacked(numbers, int(value["positions"]))
        return Fetched(str(value["kind"]), shape, element_type, None, pooled)
    values = None
    packed = ELEMENT_TYPES.get(element_type)
    if value["buffer"] is not None and packed is not None and packed.bits in (2, 4) and shape is not None:
        raw = np.frombuffer(buffers[value["buffer"]], np.uint8)
        codes = unpack_bits(raw, packed.bits, math.prod(shape))
        values = elements_from_codes(codes, packed).reshape(shape)
    elif value["buffer"] is not None and dtype is not None and extent is not None:
        # a copy: aligned, and without the rest of the message
        values = np.frombuffer(buffers[value["buffer"]], dtype).reshape(extent).copy()
    return Fetched(str(value["kind"]), shape, element_type, values)
