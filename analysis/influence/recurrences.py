"""LSTM, GRU and RNN written out step by step, with the terms of their gates, cells and states."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.influence.terms import NotMeasured, Terms, Wanted, Written, dense_terms
from emergraph.exporters.nodes import attributes
from emergraph.exporters.operations import GRU, LSTM, RNN
from emergraph.exporters.tracing.labels import NO_UNIT, compress, core
from emergraph.exporters.tracing.sums import Sum
from emergraph.graphstore.records import EdgeKind

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Curve = Callable[[Floats], Floats]


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


CURVES: dict[str, Curve] = {
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "hardsigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "softsign": lambda x: x / (1 + np.abs(x)),
}
USUAL = {LSTM: ("sigmoid", "tanh", "tanh"), GRU: ("sigmoid", "tanh"), RNN: ("tanh",)}


class _Direction(NamedTuple):
    """One direction of an operation; arrays are (steps, batch, features), in the order of its steps."""

    x: Floats
    w: Floats
    r: Floats
    input_bias: Floats
    state_bias: Floats
    peepholes: Floats | None
    h: Floats
    """(batch, hidden) before the first step."""
    c: Floats
    curves: list[Curve]
    clip: float | None


def written_out(one: Sum, values: Sequence[Floats | None], units: Sequence[Ints], wanted: Wanted) -> Written:
    """The terms of a recurrent operation on one sample.

    Args:
        one: The operation.
        values: Of X, W, R, B, P, lengths, initial state and initial cell, where they are no constants.
        units: Of each of its layers.
        wanted: Target units.

    Raises:
        NotMeasured: It does something that is not written out here.
    """
    labels = compress(np.asarray(one.operands[0].labels))
    if core(labels).size != core(labels).shape[-1]:
        raise NotMeasured("a feature of its input is different units at different steps")
    row = np.broadcast_to(core(labels).reshape(-1), (labels.shape[-1],))
    given, plain = attributes(one.node), LSTM if LSTM in one.node.op_type else one.node.op_type
    terms: list[Terms] = []
    states = []
    n_directions = one.operands[1].shape[0]
    for number in range(n_directions):
        direction = _direction(one, values, number, USUAL[plain])
        own = [np.split(ids, n_directions)[number] for ids in units]
        if plain == LSTM:
            coupled = bool(given.get("input_forget", 0))
            found, h = _lstm(direction, row, own, wanted, coupled=coupled)
        elif plain == GRU:
            found, h = _gru(direction, row, own, wanted, after=bool(given.get("linear_before_reset", 0)))
        else:
            found, h = _rnn(direction, row, own, wanted)
        terms += found
        states.append(h[::-1] if _is_backward(given, number) else h)
    whole = np.stack(states, axis=1)
    n_positions = whole.shape[0] * whole.shape[2]
    return Written(terms, _outputs(one, whole), (n_positions,) * len(one.layers))


def _outputs(one: Sum, states: Floats) -> dict[str, Floats]:
    """Y and Y_h of states (steps, directions, batch, hidden)."""
    given = attributes(one.node)
    batch_first = given.get("layout", 0) == 1
    last = [states[0 if _is_backward(given, k) else -1, k] for k in range(states.shape[1])]
    both = np.moveaxis(states, 2, 0) if batch_first else states, np.stack(last, axis=1 if batch_first else 0)
    return {str(name): array for name, array in zip(one.node.output[:2], both, strict=False) if name}


def _is_backward(given: dict[str, object], number: int) -> bool:
    return given.get("direction") == "reverse" or number == 1


def _direction(one: Sum, values: Sequence[Floats | None], number: int, usual: Sequence[str]) -> _Direction:
    given = attributes(one.node)
    arrays = [
        v if v is not None or o.constant is None else np.asarray(o.constant.load(), np.float64)
        for o, v in zip(one.operands, values, strict=True)
    ]
    x, w, r, b, p, lengths, h, c = arrays
    if x is None or w is None or r is None:
        raise NotMeasured("what it reads is made inside of another operation")
    batch_first = given.get("layout", 0) == 1
    x = np.swapaxes(x, 0, 1) if batch_first else x
    if lengths is not None and (lengths != len(x)).any():
        raise NotMeasured("its samples have different lengths")
    if given.get("activation_alpha") or given.get("activation_beta"):
        raise NotMeasured("its nonlinearities have parameters of their own")
    named = [str(a, "utf-8") if isinstance(a, bytes) else str(a) for a in _listed(given.get("activations"))]
    named = named[number * len(usual) : (number + 1) * len(usual)] or list(usual)
    unknown = [name for name in named if name.lower() not in CURVES]
    if unknown:
        raise NotMeasured(f"its nonlinearity {unknown[0]} is not written out")
    hidden, rows = r.shape[2], w.shape[1]
    zeros = np.zeros((x.shape[1], hidden))
    first = [None if s is None else (s[:, number] if batch_first else s[number]) for s in (h, c)]
    biases = np.zeros((2, rows)) if b is None else b[number].reshape(2, rows)
    clip = given.get("clip")
    return _Direction(
        x=x[::-1] if _is_backward(given, number) else x,
        w=w[number],
        r=r[number],
        input_bias=biases[0],
        state_bias=biases[1],
        peepholes=None if p is None else p[number],
        h=zeros if first[0] is None else first[0],
        c=zeros if first[1] is None else first[1],
        curves=[CURVES[name.lower()] for name in named],
        clip=None if clip is None else float(str(clip)),
    )


def _listed(found: object) -> list[object]:
    return list(found) if isinstance(found, list | tuple) else []


def _flat(steps: Floats) -> Floats:
    return steps.reshape(-1, steps.shape[-1])


def _before(first: Floats, steps: Sequence[Floats]) -> Floats:
    """What each step reads of the one before."""
    return np.stack([first, *steps[:-1]])


def _clipped(d: _Direction, x: Floats) -> Floats:
    return x if d.clip is None else np.clip(x, -d.clip, d.clip)


def _pairs(kind: EdgeKind, src: Ints, dst: Ints, each: Floats, wanted: Wanted) -> Iterator[Terms]:
    """Terms (steps, batch, units) of one source for each target."""
    chosen = wanted.among(dst)
    if chosen.any():
        flat = _flat(each)[:, chosen]
        source = np.broadcast_to(src, dst.shape)[chosen]
        everywhere = np.ones(source.shape, bool)
        yield Terms(kind, source, dst[chosen], flat.sum(0), np.abs(flat).sum(0), everywhere)


_NOTHING = np.array([NO_UNIT])


def _bias(d: _Direction, bias: Floats, dst: Ints, wanted: Wanted) -> Iterator[Terms]:
    each = np.broadcast_to(bias, (*d.x.shape[:2], len(bias)))
    yield from _pairs(EdgeKind.WEIGHT, _NOTHING, dst, each, wanted)


def _lstm(
    d: _Direction, row: Ints, units: Sequence[Ints], wanted: Wanted, *, coupled: bool
) -> tuple[list[Terms], Floats]:
    """Gates i, o, f, c: c' = f c + i g, h' = o tanh(c')."""
    n = d.r.shape[1]
    gates, memory, state = units
    hs, cs, parts = [], [], []
    h, c = d.h, d.c
    bias = d.input_bias + d.state_bias
    peep = np.zeros(3 * n) if d.peepholes is None else d.peepholes
    for x in d.x:
        z = x @ d.w.T + h @ d.r.T + bias
        before, c_before = z[:, : 4 * n], c
        i = d.curves[0](_clipped(d, before[:, :n] + peep[:n] * c))
        f = 1 - i if coupled else d.curves[0](_clipped(d, before[:, 2 * n : 3 * n] + peep[2 * n :] * c))
        g = d.curves[1](_clipped(d, before[:, 3 * n :]))
        c = f * c + i * g
        o = d.curves[0](_clipped(d, before[:, n : 2 * n] + peep[n : 2 * n] * c))
        h = o * d.curves[2](c)
        hs.append(h)
        cs.append(c)
        parts.append(np.stack([i, o, f, g, c_before, c]))
    i, o, f, g, c_before, c_after = np.stack(parts, axis=1)
    found = _from_both(d, row, gates, state, _before(d.h, hs), wanted, slice(None))
    unit = np.split(gates, 4)
    if d.peepholes is not None:
        reads = ((0, c_before), (1, c_after), *(() if coupled else ((2, c_before),)))
        for gate, read in reads:
            own = peep[gate * n : (gate + 1) * n]
            found += _pairs(EdgeKind.RECURRENT, memory, unit[gate], own * read, wanted)
    kept, new = f * c_before, i * g
    for gate, each in ((0, new / 2), (3, new / 2), (0 if coupled else 2, kept / 2)):
        found += _pairs(EdgeKind.GATE, unit[gate], memory, each, wanted)
    found += _pairs(EdgeKind.RECURRENT, memory, memory, kept / 2, wanted)
    given = np.stack(hs) / 2
    found += _pairs(EdgeKind.GATE, unit[1], state, given, wanted)
    found += _pairs(EdgeKind.GATE, memory, state, given, wanted)
    if coupled:
        found = [_without(one, unit[2]) for one in found]
    return found, np.stack(hs)


def _without(one: Terms, units: Ints) -> Terms:
    """Terms without those of units that do nothing: the forget gates of a coupled cell."""
    exists = one.exists & ~np.isin(one.dst, units)
    return one._replace(exists=exists, total=one.total * exists, size=one.size * exists)


def _from_both(
    d: _Direction,
    row: Ints,
    targets: Ints,
    state: Ints,
    before: Floats,
    wanted: Wanted,
    rows: slice,
) -> list[Terms]:
    """Terms of some rows of the weights: from the input, from the state before, and both biases."""
    found = list(dense_terms(EdgeKind.WEIGHT, row, _flat(d.x), d.w[rows].T, targets, wanted))
    found += dense_terms(EdgeKind.RECURRENT, state, _flat(before), d.r[rows].T, targets, wanted)
    found += _bias(d, (d.input_bias + d.state_bias)[rows], targets, wanted)
    return found


def _gru(
    d: _Direction, row: Ints, units: Sequence[Ints], wanted: Wanted, *, after: bool
) -> tuple[list[Terms], Floats]:
    """Gates z, r and candidate n: h' = (1 - z) n + z h; the reset is folded into the recurrent weight."""
    n = d.r.shape[1]
    gates, candidate, state = units[0], units[-2], units[-1]
    hs, parts = [], []
    h = d.h
    both = d.input_bias + d.state_bias
    for x in d.x:
        own = x @ d.w.T
        zr = own[:, : 2 * n] + h @ d.r[: 2 * n].T + both[: 2 * n]
        z, r = (d.curves[0](_clipped(d, part)) for part in np.split(zr, 2, axis=1))
        if after:
            inner = r * (h @ d.r[2 * n :].T + d.state_bias[2 * n :]) + d.input_bias[2 * n :]
        else:
            inner = (r * h) @ d.r[2 * n :].T + both[2 * n :]
        new = d.curves[1](_clipped(d, own[:, 2 * n :] + inner))
        parts.append(np.stack([z, r, new, h]))
        h = (1 - z) * new + z * h
        hs.append(h)
    z, r, new, before = np.stack(parts, axis=1)
    found = _from_both(d, row, gates, state, before, wanted, slice(0, 2 * n))
    found += dense_terms(EdgeKind.WEIGHT, row, _flat(d.x), d.w[2 * n :].T, candidate, wanted)
    weights = d.r[2 * n :].T
    if after:
        found += _folded(_flat(before), _flat(r), weights, state, candidate, wanted)
        bias = d.input_bias[2 * n :] + r * d.state_bias[2 * n :]
        found += _pairs(EdgeKind.WEIGHT, _NOTHING, candidate, bias, wanted)
    else:
        reset = units[1]
        found += dense_terms(EdgeKind.RECURRENT, reset, _flat(r * before), weights, candidate, wanted)
        found += _bias(d, both[2 * n :], candidate, wanted)
        found += _pairs(EdgeKind.GATE, gates[n:], reset, r * before / 2, wanted)
        found += _pairs(EdgeKind.RECURRENT, state, reset, r * before / 2, wanted)
    fresh, carried = (1 - z) * new / 2, z * before / 2
    found += _pairs(EdgeKind.GATE, gates[:n], state, fresh + carried, wanted)
    found += _pairs(EdgeKind.GATE, candidate, state, fresh, wanted)
    found += _pairs(EdgeKind.RECURRENT, state, state, carried, wanted)
    return found, np.stack(hs)


def _folded(
    h: Floats, r: Floats, weights: Floats, state: Ints, candidate: Ints, wanted: Wanted
) -> Iterator[Terms]:
    """Terms r_j h_i w_ij of a candidate whose reset comes after the product."""
    chosen = wanted.among(candidate)
    if chosen.any():
        w, gate = weights[:, chosen], r[:, chosen]
        total, size = (h.T @ gate) * w, (np.abs(h).T @ np.abs(gate)) * np.abs(w)
        yield Terms(EdgeKind.RECURRENT, state[:, None], candidate[chosen][None], total, size, w != 0)


def _rnn(d: _Direction, row: Ints, units: Sequence[Ints], wanted: Wanted) -> tuple[list[Terms], Floats]:
    """H' = f(W x + R h + b)."""
    (state,) = units
    hs = []
    h = d.h
    for x in d.x:
        h = d.curves[0](_clipped(d, x @ d.w.T + h @ d.r.T + d.input_bias + d.state_bias))
        hs.append(h)
    return _from_both(d, row, state, state, _before(d.h, hs), wanted, slice(None)), np.stack(hs)
