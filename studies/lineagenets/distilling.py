"""Students that learnt the outputs of a net: other weights, and what is said of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from emergraph.analysis.comparison.model import Model
from emergraph.analysis.lineage.kinds import Kind
from emergraph.analysis.lineage.lineage import judge
from emergraph.analysis.lineage.outputs import Answers, shared_outputs, vector_of, with_outputs
from emergraph.analysis.lineage.pairs import compared
from lineagenets.derive import loaded
from lineagenets.nets import ARCHITECTURES, Architecture, batch, save

PATIENCE = 4
"""Steps of a student, for each of its teacher."""
WARMTH = 2.0
"""What logits are divided by."""
SAMPLES = 300
DRAWS = 100
"""Sets of independent nets of each size, for the rate of false links."""
KINDS = {kind.name: kind for kind in ARCHITECTURES}


def pupil(teacher: nn.Module, kind: Architecture, seed: int) -> nn.Module:
    """Train a net of an architecture from its own start on a teacher's outputs, and on no label."""
    torch.manual_seed(seed)
    net, rng = kind.make(), np.random.default_rng(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=kind.rate)
    for _ in range(PATIENCE * kind.steps):
        inputs, _ = batch(kind.task, 64, rng)
        with torch.no_grad():
            wanted = teacher(inputs)
        found = net(inputs)
        if kind.task == "noise":
            loss = nn.functional.mse_loss(found, wanted)
        else:
            ours, theirs = (torch.log_softmax(one.flatten(0, -2) / WARMTH, -1) for one in (found, wanted))
            loss = nn.functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def teach(nets: Path, folder: Path, seeds: int) -> None:
    """Write a student of each net, and some of another architecture: `STUDENT-SEED-of-TEACHER.onnx`."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [kind.name for kind in ARCHITECTURES if kind.task == "digits"]
    pairs = [(kind.name, kind.name, seed) for kind in ARCHITECTURES for seed in range(seeds)]
    pairs += [(one, images[place - 1], 0) for place, one in enumerate(images)]
    for own, other, seed in pairs:
        path = folder / f"{own}-{seed}-of-{other}.onnx"
        if not path.exists():
            teacher = loaded(KINDS[other], nets / f"{other}-{seed}-base.onnx")
            save(pupil(teacher, KINDS[own], seed + 5000), KINDS[own], path)


def distillation(models: dict[str, Model], paths: dict[str, Path]) -> pl.DataFrame:
    """Say what students and nets are to each other; a row for each pair of one task.

    Args:
        models: The nets and students.
        paths: Their files.
    """
    names = sorted(models)
    answers = dict(enumerate(_answers(names, paths)))
    pairs = [
        (i, j)
        for j in range(len(names))
        for i in range(j)
        if _kind(names[i]) is _kind(names[j]) and _teacher(names[i]) == _teacher(names[j])
    ]
    found = [compared(pair, models[names[pair[0]]], models[names[pair[1]]], seed=0) for pair in pairs]
    architectures = [models[name].architecture for name in names]
    n_pairs = len(names) * (len(names) - 1) // 2
    judged = judge(found, lambda place: models[names[place]], architectures, n_pairs=n_pairs, level=1e-6)
    by_pair = {(one.a, one.b): one for one in with_outputs(judged, answers, [])}
    rows = []
    for j in range(len(names)):
        for i in (i for i in range(j) if answers[i].task == answers[j].task):
            one = by_pair.get((i, j))
            bases = [names[k] for k in (i, j) if names[k].endswith("-base")]
            truth = "independent" if _teacher(names[i]) != _teacher(names[j]) else "distilled"
            rows.append(
                {
                    "task": _kind(names[i]).task,
                    "a": names[i],
                    "b": names[j],
                    "truth": truth if truth == "independent" or bases else "two students",
                    "across": _kind(names[i]) is not _kind(names[j]),
                    "kind": Kind.INDEPENDENT.value if one is None else one.judged.kind.value,
                    "p": None if one is None else one.p,
                    "score": None if one is None else one.output_score,
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def _kind(name: str) -> Architecture:
    return KINDS[name.split("-", maxsplit=1)[0]]


def _teacher(name: str) -> tuple[str, str]:
    own, seed, label = name.split("-", 2)
    return (label.removeprefix("of-") if label != "base" else own), seed


def _answers(names: list[str], paths: dict[str, Path]) -> Iterator[Answers]:
    for name in names:
        kind = _kind(name)
        inputs, _ = batch(kind.task, SAMPLES, np.random.default_rng(5))
        with torch.no_grad():
            outputs = loaded(kind, paths[name])(inputs).numpy()
        yield Answers(
            task=(len(kind.task), *outputs.shape),
            samples=f"{SAMPLES} samples",
            vector=vector_of([outputs], paths[name]),
        )


def false_links(groups: dict[str, list[Path]]) -> pl.DataFrame:
    """Count false links in random sets of independent nets.

    Args:
        groups: Files of nets of one task that differ in nothing but their seed, by what they are.
    """
    rows, rng = [], np.random.default_rng(1)
    for label, paths in groups.items():
        ordered = {path.stem: path for path in paths}
        vectors = np.array([one.vector for one in _answers(list(ordered), ordered)])
        for n in (10, 14, 20):
            pairs = follow = unclear = sets = 0
            for _ in range(DRAWS):
                found = shared_outputs(vectors[rng.choice(len(vectors), n, replace=False)], range(n))
                says = [one.says for one in found.values()]
                pairs += len(says)
                follow += says.count("follow")
                unclear += says.count("unclear")
                sets += "follow" in says
            rows.append((label, n, DRAWS, sets, pairs, follow, unclear))
    head = ("nets", "n", "sets", "sets_with_false_links", "pairs", "follow", "unclear")
    return pl.DataFrame(rows, schema=list(head), orient="row")
