"""Hidden states that were recorded elsewhere."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.information.options import Micro
from emergraph.analysis.information.states import Array, BlockStates, token_numbers
from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.inputfile import read_input_file

_NAME = re.compile(r"(state|alone)_(\d+)")


def recorded_states(path: str | Path, *, micro: Micro = Micro.ALONE) -> BlockStates:
    """Read hidden states from an .npz or .safetensors file.

    The file holds `state_0`, `state_1`, ... (n, length, width): the states before the first block and after
    each, and `sequences` (n, length): the ids that went in. For tokens fed alone also `tokens` (m,), distinct
    ids, and `alone_0`, `alone_1`, ... (m, width): the states of each by itself.

    Args:
        path: The file.
        micro: Micro level; `alone` needs the arrays above.

    Raises:
        InvalidInputError: Arrays are missing or do not fit.

    Example:
        >>> recorded_states("hidden.npz", micro=Micro.FIRST).blocks  # doctest: +SKIP
        ('block_1', 'block_2')
    """
    file = read_input_file(path)
    arrays = dict(file.arrays)
    states, alone = (_numbered(arrays, kind) for kind in ("state", "alone"))
    ids = arrays.get("sequences")
    shown = Path(path).name
    if len(states) < 2 or ids is None or ids.ndim != 2:
        raise InvalidInputError(
            f"{shown}: expected sequences (n, length) and state_0, state_1, ... (n, length, width), "
            f"found {', '.join(sorted(arrays)) or 'none'}"
        )
    for array in states:
        if array.ndim != 3 or array.shape[:2] != ids.shape:
            raise InvalidInputError(
                f"{shown}: states of shape {list(array.shape)}; expected "
                f"[{ids.shape[0]}, {ids.shape[1]}, width]"
            )
    kept, inputs = _micro(shown, states, alone, ids, arrays.get("tokens"), micro)
    return BlockStates(
        blocks=tuple(f"block_{number}" for number in range(1, len(states))),
        last=tuple(array[:, -1] for array in states),
        inputs=inputs,
        micro={micro: kept},
        description=f"{len(ids)} recorded sequences of {ids.shape[1]} in {file.source}",
    )


def _numbered(arrays: dict[str, Array], kind: str) -> list[Array]:
    found = {
        int(m[2]): array for name, array in arrays.items() if (m := _NAME.fullmatch(name)) and m[1] == kind
    }
    return [found[number] for number in sorted(found)]


def _micro(
    shown: str, states: list[Array], alone: list[Array], ids: Array, tokens: Array | None, micro: Micro
) -> tuple[tuple[Array, ...], NDArray[np.int64]]:
    """The micro states per boundary, and which token each token of a sequence is."""
    if micro != Micro.ALONE:
        places = slice(0, 1) if micro == Micro.FIRST else slice(None)
        return tuple(array[:, places] for array in states), token_numbers(ids.reshape(-1)).reshape(ids.shape)
    fits = tokens is not None and tokens.ndim == 1 and len(alone) == len(states)
    if tokens is None or not fits or any(a.ndim != 2 or len(a) != len(tokens) for a in alone):
        raise InvalidInputError(
            f"{shown}: for tokens fed alone expected tokens (m,) and alone_0, alone_1, ... (m, width), one "
            "per state; or use another micro level: first or positions"
        )
    order = np.argsort(tokens)
    place = np.searchsorted(tokens[order], ids)
    if place.max(initial=0) >= len(tokens) or not (tokens[order][place] == ids).all():
        raise InvalidInputError(f"{shown}: sequences holds ids that tokens does not")
    return tuple(array[order] for array in alone), place.astype(np.int64)
