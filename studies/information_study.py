"""The study of information emergence: `python studies/information_study.py [--quick]`.

Estimates the information emergence of the blocks of two decoders by all estimators, against the ceiling, and
writes `studies/results/information/` and `docs/information-study.md`. `--page-only` writes the page from the
tables that are there. Finished parts lie in the user's cache, so that a second run goes on where the first
stopped. Needs the wheel's model file (`make models`), but not with `--quick`.
"""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import polars as pl
import torch
from blockinformation.decoders import TextDecoder, project_text, text_decoder, wheel_decoder
from blockinformation.experiment import Plan, estimate_all
from blockinformation.page import write_page

from emergraph.analysis.information.options import TextUnit
from emergraph.analysis.information.sequences import entity_sequences, text_sequences

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "information"
PAGE = HERE.parent / "docs" / "information-study.md"
MODELS = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache" / "emergraph" / "models"))
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emergraph" / "studies" / "information"
)
SAMPLES = 1500
MINE_SAMPLES = 500
"""Its critics are trained 45 times per model."""
SHAPES = {"25 entities, 4 shots": (25, 4), "16 entities, 5 shots": (16, 5), "15 entities, 5 shots": (15, 5)}
"""The in-context data sets of arXiv 2405.12617."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny decoder, nothing kept")
    parser.add_argument("--page-only", action="store_true", help="write the page from the tables")
    parser.add_argument("--jobs", type=int, default=-1, help="stop after so many new tables")
    arguments = parser.parse_args()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    if arguments.quick:
        quick(say)
        return 0
    if not arguments.page_only and not run(say, arguments.jobs):
        return 0
    write_page(RESULTS, PAGE)
    return 0


def quick(say) -> pl.DataFrame:  # noqa: ANN001 - prints
    """A decoder of two blocks on few sequences."""
    net = TextDecoder(width=16, blocks=2, heads=2)
    sequences = entity_sequences(range(1, 9), 0, shots=2)
    plan = Plan(dimensions=(1, 2), repeats=4, ksg_repeats=2)
    return estimate_all(net, sequences, plan, model="tiny", data="8 entities, 2 shots", say=say)


def run(say, jobs_now: int) -> bool:  # noqa: ANN001 - prints
    """Measure what is not there yet, one table per model and data, and put the tables together.

    Returns whether all tables are there; False after `jobs_now` new ones.
    """
    frames = []
    CACHE.mkdir(parents=True, exist_ok=True)
    text = project_text(HERE.parent)
    source = CACHE / "text.txt"
    source.write_text(text, encoding="utf-8")
    windows = text_sequences(source, length=8, unit=TextUnit.BYTES, n=SAMPLES)
    lists = {
        name: entity_sequences(range(101, 101 + n), 100, shots=shots, n=SAMPLES)
        for name, (n, shots) in SHAPES.items()
    }
    first = next(iter(SHAPES))
    jobs = [("text decoder", "text"), ("microformer", first), ("text decoder, untrained", "text")]
    jobs += [("microformer, untrained", first), ("text decoder", first)]
    jobs += [("microformer", data) for data in lists if data != first]
    all_jobs = [(*job, False) for job in jobs] + [(*job, True) for job in jobs[:2]]
    for model, data, mine in all_jobs:
        table = CACHE / f"{model} on {data}{' by mine' if mine else ''}.parquet"
        if not table.exists():
            if jobs_now == 0:
                return False
            jobs_now -= 1
            began = time.process_time()
            sequences = windows if data == "text" else lists[data]
            if mine:
                sequences = replace(sequences, values=sequences.values[:: SAMPLES // MINE_SAMPLES])
            net = decoder(model, text)
            found = estimate_all(net, sequences, Plan(mine=mine), model=model, data=data, say=say)
            found = found.with_columns(cpu_seconds=pl.lit(time.process_time() - began))
            found.write_parquet(table)
        frames.append(pl.read_parquet(table))
    RESULTS.mkdir(parents=True, exist_ok=True)
    pl.concat(frames).write_parquet(RESULTS / "blocks.parquet")
    shutil.copy(CACHE / "text-decoder.json", RESULTS / "text-decoder.json")
    say("done")
    return True


def decoder(model: str, text: str):  # noqa: ANN201 - a module
    """One of the four models."""
    if model.startswith("microformer"):
        return wheel_decoder(MODELS, trained=model == "microformer")
    if model != "text decoder":
        torch.manual_seed(0)
        return TextDecoder()
    weights = CACHE / "text-decoder.pt"
    if weights.exists():
        net = TextDecoder()
        net.load_state_dict(torch.load(weights, weights_only=True))
        return net
    net, about = text_decoder(text, steps=1500)
    (CACHE / "text-decoder.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    torch.save(net.state_dict(), weights)
    return net


if __name__ == "__main__":
    sys.exit(main())
