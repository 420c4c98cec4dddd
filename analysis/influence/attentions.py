"""Fused attention written out: the terms of its scores and of its context."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.influence.terms import NotMeasured, Terms, Wanted, Written
from emergraph.exporters.nodes import attributes
from emergraph.exporters.tracing.labels import Labels, compress
from emergraph.exporters.tracing.sums import Sum
from emergraph.graphstore.records import EdgeKind

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def written_attention(
    one: Sum, values: Sequence[Floats | None], units: Sequence[Ints], wanted: Wanted
) -> Written:
    """The terms of scores (half of q k to each, scaled, before any mask) and of the context (all to v).

    Args:
        one: An `Attention` of the standard operations.
        values: Of q, k, v and, where there is one, the mask.
        units: Of its scores and of its context.
        wanted: Target units.

    Raises:
        NotMeasured: It does something that is not written out here.
    """
    given = attributes(one.node)
    if any(v is None for v in values[:3]):
        raise NotMeasured("what it reads is made inside of another operation")
    four = len(one.operands[0].shape) == 4
    n_q = one.operands[0].shape[1] if four else int(str(given.get("q_num_heads", 1)))
    n_kv = one.operands[1].shape[1] if four else int(str(given.get("kv_num_heads", n_q)))
    q, k, v = (_heads(np.asarray(value), n) for value, n in zip(values[:3], (n_q, n_kv, n_kv), strict=True))
    group = n_q // n_kv
    k, v = (np.repeat(part, group, axis=1) for part in (k, v))
    own = [
        np.repeat(_units(np.asarray(o.labels), n), n_q // n, axis=0)
        for o, n in zip(one.operands[:3], (n_q, n_kv, n_kv), strict=True)
    ]
    scale = float(str(given.get("scale", 1 / np.sqrt(q.shape[-1]))))
    scores, context = units[0], units[1].reshape(n_q, -1)
    terms = _of_scores(q, k, own, scores, scale, wanted)
    weighed = _softmax(one, scale * np.einsum("bhtd,bhsd->bhts", q, k), values)
    mixed = np.einsum("bhts,bhsf->bhtf", weighed, v)
    for head in range(n_q):
        chosen = wanted.among(context[head])
        each = mixed[:, head][..., chosen].reshape(-1, int(chosen.sum()))
        ends = (own[2][head][chosen], context[head][chosen])
        everywhere = np.ones(ends[0].shape, bool)
        terms.append(Terms(EdgeKind.ATTENTION, *ends, each.sum(0), np.abs(each).sum(0), everywhere))
        nothing = np.zeros(ends[0].shape)
        score = np.full(ends[0].shape, scores[head])
        terms.append(Terms(EdgeKind.ATTENTION, score, ends[1], nothing, nothing.copy(), everywhere))
    out = mixed if four else np.swapaxes(mixed, 1, 2).reshape(*mixed.shape[:1], mixed.shape[2], -1)
    n_batch, _, n_rows, n_columns = weighed.shape
    return Written(terms, {str(one.node.output[0]): out}, (n_batch * n_rows * n_columns, n_batch * n_rows))


def _heads(values: Floats, n: int) -> Floats:
    """(batch, heads, positions, features)."""
    if values.ndim == 4:
        return values
    return np.swapaxes(values.reshape(*values.shape[:2], n, -1), 1, 2)


def _units(labels: Labels, n: int) -> Ints:
    """(heads, features) of an operand whose positions are no units."""
    packed = compress(labels)
    axes = (1, 3) if packed.ndim == 4 else (2,)
    if any(packed.strides[k] and packed.shape[k] > 1 for k in range(packed.ndim) if k not in axes):
        raise NotMeasured("a feature that it reads is different units at different positions")
    index = tuple(slice(None) if k in axes else 0 for k in range(packed.ndim))
    return np.asarray(packed[index]).reshape(n, -1)


def _of_scores(
    q: Floats, k: Floats, own: Sequence[Ints], scores: Ints, scale: float, wanted: Wanted
) -> list[Terms]:
    total = 0.5 * scale * np.einsum("bhtd,bhsd->hd", q, k)
    size = 0.5 * abs(scale) * np.einsum("bhtd,bhsd->hd", np.abs(q), np.abs(k))
    found = []
    for head in np.flatnonzero(wanted.among(scores)):
        for side in own[:2]:
            target = np.full(side[head].shape, scores[head])
            everywhere = np.ones(target.shape, bool)
            found.append(Terms(EdgeKind.ATTENTION, side[head], target, total[head], size[head], everywhere))
    return found


def _softmax(one: Sum, scores: Floats, values: Sequence[Floats | None]) -> Floats:
    given = attributes(one.node)
    cap = float(str(given.get("softcap", 0.0)))
    if cap:
        scores = cap * np.tanh(scores / cap)
    if given.get("is_causal", 0):
        rows, columns = scores.shape[-2:]
        scores = np.where(np.tri(rows, columns, dtype=bool), scores, -np.inf)
    if len(one.operands) > 3:
        constant = one.operands[3].constant
        mask = values[3] if constant is None else constant.load()
        if mask is None:
            raise NotMeasured("its mask is made inside of another operation")
        array = np.asarray(mask)
        is_bool = array.dtype == bool
        scores = np.where(array, scores, -np.inf) if is_bool else scores + np.asarray(array, np.float64)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
