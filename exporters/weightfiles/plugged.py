"""Formats of plug-ins: a child process without a network reads the file, and this one reads what it wrote.

The plug-in gives arrays by name. The child writes them as a safetensors file, which is then read as strictly
as any other: whatever the plug-in, or a library underneath, was brought to do, only numbers come back.
"""

import json
import resource
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.formats import FORMATS, Format, Sample
from emergraph.exporters.mappedfile import MappedFile
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.offline import Task, call_offline
from emergraph.exporters.weightfiles.dtypes import SAFETENSORS_DTYPES
from emergraph.exporters.weightfiles.files import map_file
from emergraph.exporters.weightfiles.safetensorsfile import read_safetensors
from emergraph.exporters.weightfiles.weightfile import Contents
from emergraph.leftovers import Scratch
from emergraph.plugins import FORMATS as GROUP
from emergraph.plugins import Plugin, Plugins, plugins

ANY_PLUGIN = "any"
"""Whichever knows a file."""

_NAMES = {np.dtype(dtype).name: name for name, dtype in SAFETENSORS_DTYPES.items() if hasattr(np, dtype)}


def format_plugins() -> Plugins:
    """Return the plug-ins of formats that are installed."""
    return plugins(GROUP, taken={known.name for known in FORMATS})


def read_plugged(
    mapped: MappedFile, plugin: str, contents: Contents, *, limits: RunLimits | None = None
) -> str | None:
    """Let plug-ins read a file that nothing built in reads.

    Args:
        mapped: The file.
        plugin: The one that reads it, without being asked whether the file is of its format; ANY_PLUGIN: the
            first that knows it.
        contents: Where the tensors go.
        limits: Of the child process.

    Returns:
        The name of the format; None where no plug-in knows the file.

    Raises:
        UsageError: No plug-in of this name is installed.
        InvalidInputError: A plug-in cannot be used, or cannot read the file.
        UnsafeInputError: It tried to reach the network.
        LimitError: It took too long or too much memory.
    """
    candidates = format_plugins().found
    if plugin != ANY_PLUGIN:
        by_name = {found.name: found for found in candidates}
        if plugin not in by_name:
            raise UsageError(unknown("format plug-in", plugin, by_name))
        candidates = (by_name[plugin],)
    if not candidates:
        return None
    names = ", ".join(found.name for found in candidates)
    task = Task(
        doing=f"reading {mapped.path.name} with the format plug-in {names}",
        advice="leave it out with --no-plugins",
        plain=True,
    )
    with Scratch() as scratch:
        target = scratch.path / "weights.safetensors"
        found = call_offline(
            _read_here,
            candidates,
            str(mapped.path.absolute()),
            str(target),
            plugin != ANY_PLUGIN,
            limits=limits,
            task=task,
        )
        if found is None:
            return None
        if found not in {candidate.name for candidate in candidates}:
            raise InvalidInputError(f"{task.doing} gave the name of another format")
        read_safetensors(map_file(target).content, "", contents)
    return str(found)


def _read_here(candidates: tuple[Plugin, ...], path: str, target: str, asked: bool) -> str | None:
    """In the child: find the plug-in whose format a file is of, and write what it reads.

    Args:
        candidates: In the order in which they are asked.
        path: The file.
        target: Where the weights go.
        asked: The one plug-in was named: it need not know the file.
    """
    _bound_files()
    mapped = map_file(Path(path))
    broken: list[InvalidInputError] = []
    for plugin in candidates:
        try:
            known = _format(plugin)
            if asked or _knows(plugin, known, Sample(mapped.path.name, mapped.content)):
                _write(Path(target), _weights(plugin, known, mapped.content))
                return plugin.name
        except InvalidInputError as error:
            broken.append(error)
    if broken:
        raise broken[0]
    return None


def _format(plugin: Plugin) -> Format:
    found = plugin.load()
    if not isinstance(found, Format) or found.read is None:
        raise plugin.broken(f"{plugin.target} is not a Format with a function that reads it")
    return found


def _knows(plugin: Plugin, known: Format, sample: Sample) -> bool:
    try:
        return bool(known.sniff(sample))
    except Exception as error:
        raise plugin.broken(f"{type(error).__name__}: {error}") from error


def _weights(plugin: Plugin, known: Format, content: memoryview) -> dict[str, NDArray[np.generic]]:
    """The arrays that a plug-in gives, checked."""
    if known.read is None:
        return {}
    found = known.read(content)
    if not isinstance(found, Mapping):
        raise plugin.broken(f"it gave {type(found).__name__}, expected arrays by name")
    weights: dict[str, NDArray[np.generic]] = {}
    for name, value in found.items():
        array = np.asarray(value, order="C")
        if not isinstance(name, str) or array.dtype.name not in _NAMES:
            raise plugin.broken(f"tensor {name!r} is of type {array.dtype}, expected numbers")
        weights[name] = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return weights


def _write(target: Path, weights: Mapping[str, NDArray[np.generic]]) -> None:
    """Write arrays as a safetensors file."""
    header, position = {}, 0
    for name, array in weights.items():
        end = position + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header).encode()
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in weights.values():
            file.write(array.tobytes())


def _bound_files() -> None:
    """Let no file grow beyond the memory that this process may take."""
    most = resource.getrlimit(resource.RLIMIT_DATA)[0]
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if most != resource.RLIM_INFINITY:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )
