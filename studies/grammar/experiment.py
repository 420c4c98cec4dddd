"""Train one transformer on one language, and keep what it can do step by step."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from parts import write

import emergraph
from emergraph.analysis.percolation.result import PercolationResult
from emergraph.exporters.pytorch.recorder import RecorderOptions
from grammar.language import PAD, Language, Speaker, make_language, read
from grammar.model import Decoder, Exam, sentence_loss

WARM_UP = 30
"""Steps over which the learning rate rises to its value."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    n_properties: int
    batch: int
    """Sentences per step, all of them new."""
    learning_rate: float
    steps: int
    seed: int
    n_entities: int = 90
    width: int = 64
    """Of the transformer, a multiple of 2."""
    n_free: int = 100
    """Sentences that the model makes up at each examination."""
    checks: int = 40
    """Steps at which the model is examined, evenly spaced in the logarithm from step 5 on."""
    release: float = 0.0
    """New pairs per step, of which sentences are made; 0: of all pairs from the first step on."""
    blind: bool = False
    """Classes show in pairs alone, see `Speaker`."""

    @property
    def name(self) -> str:
        """The name of the run's files."""
        scarce = f"-r{self.release:g}" if self.release else ""
        return f"k{self.n_properties}-b{self.batch}-s{self.seed}{scarce}{'-blind' if self.blind else ''}"

    def check_steps(self) -> list[int]:
        """The steps after which the model is examined, ascending."""
        return np.unique(np.geomspace(5, self.steps, self.checks).round().astype(int)).tolist()


@dataclass(frozen=True, eq=False)
class _Learner:
    run: Run
    language: Language
    speaker: Speaker
    model: Decoder
    exam: Exam

    def checkpoints(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Train, and stop at each examined step to give the step and its measures."""
        run = self.run
        optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=run.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        checks = set(run.check_steps())
        for step in range(1, run.steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = run.learning_rate * min(1.0, step / WARM_UP)
            if run.release:
                self.speaker.release(int(run.release * step) - int(run.release * (step - 1)))
            rows = torch.from_numpy(self.speaker.sentences(run.batch))
            longest = int((rows != PAD).sum(dim=1).max())
            loss = sentence_loss(self.model, rows[:, :longest])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step in checks:
                found = self.exam.answers(self.model)
                if run.release:
                    found |= self.exam.inferred(self.model, self._stated())
                yield step, found

    def _stated(self) -> NDArray[np.bool_]:
        stated = np.zeros_like(self.language.allowed)
        for pair in self.speaker.first_seen:
            stated[pair] = True
        return stated


def _learner(run: Run) -> _Learner:
    language = make_language(run.n_entities, run.n_properties, seed=run.seed)
    held_out = Speaker(language, 10_000 + run.seed, blind=run.blind).sentences(128)
    torch.manual_seed(run.seed)
    exam = Exam(
        language=language,
        rows=torch.from_numpy(held_out),
        readings=tuple(read(language, row[row != PAD].tolist()) for row in held_out),
        generator=torch.Generator().manual_seed(run.seed),
        n_free=run.n_free,
    )
    model = Decoder(language.n_words, width=run.width)
    speaker = Speaker(language, run.seed, blind=run.blind)
    if run.release:
        speaker.withhold()
    return _Learner(run, language, speaker, model, exam)


def train(run: Run, folder: Path) -> None:
    """Train one model; write `<name>.parquet` (measures by step) and `<name>-pairs.parquet` into a folder.

    The pairs are those that the training sentences state, each with the first step that it occurs in.
    Nothing is done where the files are there already.
    """
    done = folder / f"{run.name}.parquet"
    if done.exists():
        return
    started = time.process_time()
    learner = _learner(run)
    rows = [{"step": step, **found} for step, found in learner.checkpoints()]
    folder.mkdir(parents=True, exist_ok=True)
    write(_pairs(learner), folder / f"{run.name}-pairs.parquet", seconds=0.0)
    about = {name: getattr(run, name) for name in ("n_entities", "n_properties", "batch", "seed")}
    frame = pl.DataFrame(rows).select(*(pl.lit(v).alias(k) for k, v in about.items()), pl.all())
    write(frame, done, seconds=time.process_time() - started)


def _pairs(learner: _Learner) -> pl.DataFrame:
    seen = learner.speaker.first_seen
    return pl.DataFrame(
        {
            "entity": pl.Series([entity for entity, _ in seen], dtype=pl.Int32),
            "property": pl.Series([kind for _, kind in seen], dtype=pl.Int32),
            "step": pl.Series([n // learner.run.batch + 1 for n in seen.values()], dtype=pl.Int32),
        }
    )


def read_logs(runs: Sequence[Run], folder: Path) -> pl.DataFrame:
    """The measures of all runs, one row per run and examined step."""
    return pl.concat(pl.read_parquet(folder / f"{run.name}.parquet") for run in runs)


def read_pairs(runs: Sequence[Run], folder: Path) -> pl.DataFrame:
    """The pairs that the training sentences of all runs state, with the runs' sizes."""
    frames = []
    for run in runs:
        pairs = pl.read_parquet(folder / f"{run.name}-pairs.parquet")
        about = {"n_entities": run.n_entities, "n_properties": run.n_properties, "batch": run.batch}
        frames.append(pairs.select(*(pl.lit(v).alias(k) for k, v in about.items()), pl.all()))
    return pl.concat(frames)


def record(run: Run, folder: Path) -> None:
    """Train one model under `emergraph.record`; write `<name>-recorded.parquet` with one row per snapshot.

    Each snapshot gives path-count emergence on 64 held-out sentences, and the percolation of the unit graph
    by weight and at random, beside the model's measures at that step.
    """
    done = folder / f"{run.name}-recorded.parquet"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / f"{run.name}.duckdb"
    for old in (store, store.with_name(f"{store.name}.wal")):
        old.unlink(missing_ok=True)
    started = time.process_time()
    learner = _learner(run)
    probe = learner.exam.rows[:64]
    with emergraph.record(
        learner.model, store, inputs=(probe,), name="grammar", options=RecorderOptions(n_values=1)
    ) as recorder:
        rows = [{"step": 0, **learner.exam.answers(learner.model)}]
        recorder.step(0, loss=rows[0]["loss"])
        for step, found in learner.checkpoints():
            rows.append({"step": step, **found})
            recorder.step(step, **{name: value for name, value in found.items() if np.isfinite(value)})
    found = pl.DataFrame(rows).join(_snapshots(store), on="step", how="left")
    write(found, done, seconds=time.process_time() - started)
    store.unlink()


def _snapshots(store: Path) -> pl.DataFrame:
    """Measure every snapshot of a store."""
    rows = []
    opened = emergraph.open(store)
    for graph_id, step in opened.graphs.select("id", "step").iter_rows():
        graph = opened.graph(graph_id)
        counted = graph.emergence(rule="mean_abs", save=False)
        wired = graph.percolate(seeds=1, nulls=3, save=False)
        alone = graph.percolate(seeds=1, nulls=3, structure="absent", save=False)
        rows.append(
            {
                "step": step,
                "log10_emergence_active": counted.active.emergence.log10,
                "log10_emergence_any": counted.any.emergence.log10,
                "active_share": counted.n_active / (counted.n_active + counted.n_inactive),
                "edges": wired.n_edges,
                "half_reach": wired.observed.half_reach,
                **_thresholds(wired, "wired"),
                **_thresholds(alone, "weights"),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None).sort("step")


def _thresholds(found: PercolationResult, name: str) -> dict[str, float]:
    """Thresholds by weight and of both nulls; "wired": with junctions and attention, "weights": without."""
    observed, shuffled, random = found.series
    return {
        f"{name}_threshold": observed.threshold,
        f"{name}_shuffled": shuffled.threshold,
        f"{name}_random": random.threshold,
    }
