"""Networks that share outputs and no weights: one was distilled from the other, or both from a third.

Networks of one task agree, and those of one architecture more so. What counts is what two share that others
of the task do not: the correlation of their outputs on the same samples, given the outputs of the others.
It is a score, no test.
"""

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.lineage.kinds import Judged, Kind
from emergraph.analysis.lineage.pairs import Relation
from emergraph.analysis.statistics.permutation import SIGNIFICANT
from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.inputfile import InputFile
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.safetext import escape_controls

Floats = NDArray[np.float64]
SHARED = 0.8
"""Correlation given the others from which outputs follow each other."""
FEWEST = 8
"""Other networks of the task, each of a family of its own, that a pair is held against."""
MOST = 24
NUMBERS = 200_000
"""Numbers of all samples' outputs that are compared."""
LEAST_PROBABILITY = 1e-6
"""Probabilities below this one count as this one: their logarithms are compared."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a network says of the samples."""

    task: tuple[int, ...]
    """Networks of one task have it in common: checksum of what went in, and sizes of what came out."""
    samples: str
    """Which they are, in words."""
    vector: Floats


def answers_of(path: Path, samples: InputFile | RandomInputs, *, root: Path | None = None) -> Answers:
    """Run an ONNX model in a limited process.

    Args:
        path: The model.
        samples: Arrays by input name (where a model has one input and there is one array, its name does not
            matter), or how many random ones.
        root: Folder inside which files of a model may be links.

    Raises:
        EmergraphError: It is no ONNX model, does not take the samples, or takes too much.
    """
    from emergraph.analysis.modelruns.running import ModelRuns
    from emergraph.exporters.onnxfile.reader import read_onnx
    from emergraph.exporters.runtime.sources import as_source
    from emergraph.exporters.traces.options import TraceOptions
    from emergraph.exporters.traces.prepare import given_samples, random_samples

    file = read_onnx(path, root=root)
    if isinstance(samples, RandomInputs):
        prepared = random_samples(file, samples, TraceOptions())
        told = f"{samples.n} random samples"
    else:
        arrays = samples.arrays
        stored = {tensor.name for tensor in file.model.graph.initializer}
        names = [value.name for value in file.model.graph.input if value.name not in stored]
        if len(names) == len(arrays) == 1:
            arrays = {names[0]: next(iter(arrays.values()))}
        prepared = given_samples(file, arrays, TraceOptions())
        told = f"{prepared.samples.n} samples of {escape_controls(samples.source)}"
    fed = zlib.crc32(
        b"".join(one.tobytes() for one in prepared.samples.feeds(range(prepared.samples.n)).values())
    )
    with ModelRuns(prepared.run.flat, as_source(file), prepared, limits=RunLimits()) as runs:
        outputs = runs.expected
    sizes = [size for one in outputs for size in (one.ndim, *one.shape)]
    return Answers(task=(fed, *sizes), samples=told, vector=vector_of(outputs, path))


def vector_of(outputs: Sequence[NDArray[np.generic]], path: Path) -> Floats:
    """Return all outputs of floats, each as large as the others; of probabilities their logarithms.

    Raises:
        InvalidInputError: They say nothing of the samples.
    """
    parts = []
    for one in outputs:
        if one.dtype.kind != "f":
            continue
        rows = one.astype(np.float64).reshape(
            -1, one.shape[-1] if one.ndim > 1 and one.shape[-1] > 1 else one.size
        )
        if rows.min(initial=0.0) >= 0 and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3):
            rows = np.log(np.maximum(rows, LEAST_PROBABILITY))
        rows = rows - rows.mean(axis=1, keepdims=True)  # what a softmax does not see
        if size := float(np.linalg.norm(rows)):
            parts.append(rows.ravel() / size)
    whole = np.concatenate(parts) if parts else np.zeros(0)
    if not whole.size or not np.isfinite(whole).all():
        what = "are not finite" if whole.size else "say nothing: no floats, or one number for all samples"
        raise InvalidInputError(f"{escape_controls(path.name)}: its outputs on the samples {what}")
    return whole[:: max(1, whole.size // NUMBERS)]


@dataclass(frozen=True)
class _Shared:
    """What two networks share of their outputs."""

    says: str
    """follow, unclear, no sign, or undecided."""
    score: float | None
    others: int
    usual: float = 0.0
    """Median over all pairs."""


def with_outputs(
    found: Sequence[Relation], answers: Mapping[int, Answers], families: Sequence[Sequence[int]]
) -> list[Relation]:
    """Say of pairs that share no weights whether their outputs follow each other.

    Args:
        found: Pairs that were compared by weights; others are added where there is something to say.
        answers: By the number of a model that was run.
        families: Models that are related by weights.
    """
    family = {member: min(members) for members in families for member in members}
    tasks: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, one in answers.items():
        tasks[one.task].append(number)
    shared: dict[tuple[int, int], _Shared] = {}
    for members in tasks.values():
        vectors = np.array([answers[number].vector for number in members])
        own = shared_outputs(vectors, [family.get(number, number) for number in members])
        shared |= {(members[i], members[j]): one for (i, j), one in own.items()}
    known = {(one.a, one.b) for one in found}
    new = [
        Relation(
            a=a, b=b, test=None, alike=None, share=0.0, score=None, judged=_NOT_COMPARED, test_says="none"
        )
        for (a, b), one in shared.items()
        if (a, b) not in known and one.says in ("follow", "unclear")
    ]
    return [
        _told(one, shared[one.a, one.b], answers[one.a].samples) if (one.a, one.b) in shared else one
        for one in (*found, *new)
    ]


_NOT_COMPARED = Judged(kind=Kind.INDEPENDENT, origin="", evidence="weights that are far apart")


def _told(pair: Relation, shared: _Shared, samples: str) -> Relation:
    pair = replace(pair, outputs=shared.says, output_score=shared.score)
    how = f"{shared.others} other network{'s' * (shared.others != 1)} of this task"
    if shared.says == "undecided":
        how = f"outputs undecided: {how}, {FEWEST} are needed"
        return replace(pair, judged=replace(pair.judged, evidence=f"{pair.judged.evidence}; {how}"))
    how = f"outputs on {samples} correlate by {shared.score:.2f} given {how}, usually {shared.usual:.2f}"
    if shared.says == "follow":
        how = f"{how}: a score, no test; which was first, or whether both follow a third, is open"
        judged = Judged(kind=Kind.DISTILLED, origin="", evidence=f"{how}; {pair.judged.evidence}")
        return replace(pair, related=True, by="outputs", judged=judged)
    if shared.says == "unclear":
        judged = Judged(kind=Kind.UNDECIDED, origin="", evidence=f"{how}; {pair.judged.evidence}")
        return replace(pair, judged=judged)
    return replace(pair, judged=replace(pair.judged, evidence=f"{pair.judged.evidence}; {how}"))


def shared_outputs(vectors: Floats, families: Sequence[int]) -> dict[tuple[int, int], _Shared]:
    """Return what networks of two families share that others do not, for each pair.

    What follows one of a pair is none of the others when they are looked at again: two students of a teacher
    would each explain what the other one shares with it.

    Args:
        vectors: A row of outputs for each network of a task, of one length.
        families: A number for each; those with one number share weights.
    """
    products = vectors @ vectors.T
    near: defaultdict[int, set[int]] = defaultdict(set)
    first = {family: number for number, family in reversed(list(enumerate(families)))}
    members = np.random.default_rng(0).permutation(sorted(first.values())).tolist()
    apart = [(i, j) for i, j in combinations(range(len(families)), 2) if families[i] != families[j]]
    found = {pair: _Shared("undecided", None, len(_others(members, families, pair, near))) for pair in apart}
    scores: dict[tuple[int, int], float] = {}
    n_others: dict[tuple[int, int], int] = {}
    while True:
        for pair in apart:  # where others became too few, what was seen with more of them stands
            if len(others := _others(members, families, pair, near)) >= FEWEST:
                scores[pair], n_others[pair] = _given_others(products, *pair, others), len(others)
        if not scores:
            return found
        heights = np.arctanh(np.clip(list(scores.values()), -1 + 1e-9, 1 - 1e-9))
        usual, grown = float(np.tanh(np.median(heights))), False
        for ((i, j), score), stands in zip(scores.items(), _stand_out(heights), strict=True):
            says = "no sign" if not stands else "follow" if score >= SHARED else "unclear"
            found[i, j] = _Shared(says, score, n_others[i, j], usual)
            if stands and j not in near[i]:
                near[i].add(j)
                near[j].add(i)
                grown = True
        if not grown:
            return found


def _others(
    members: Sequence[int], families: Sequence[int], pair: tuple[int, int], near: Mapping[int, set[int]]
) -> list[int]:
    """Networks of other families than those of a pair, as many as are needed, none near to one of the two."""
    own, found = {families[number] for number in pair}, []
    for number in members:
        if families[number] not in own and all(number not in near[one] for one in pair):
            found.append(number)
            if len(found) == MOST:
                break
    return found


def _given_others(products: Floats, i: int, j: int, others: Sequence[int]) -> float:
    """The correlation of two given others."""
    chosen = [i, j, *others]
    inverse = np.linalg.pinv(products[np.ix_(chosen, chosen)], rcond=1e-10, hermitian=True)
    size = float(np.sqrt(max(0.0, inverse[0, 0] * inverse[1, 1])))
    return float(-inverse[0, 1] / size) if size else 0.0


def _stand_out(heights: Floats) -> NDArray[np.bool_]:
    """Which are far above the others: by a normal distribution around their median, over all of them."""
    from scipy.stats import norm

    middle = np.median(heights)
    spread = np.median(np.abs(heights - middle)) / norm.ppf(0.75)
    p = norm.sf((heights - middle) / max(float(spread), 1e-9))
    return np.asarray(p * heights.size < SIGNIFICANT)
