"""Simulate every interval and test of the house, and write docs/calibration.md.

    python tests/calibration/calibrate.py [--hours 2] [--state build/calibration.jsonl] [--only NAME] [--page]

Each case runs in blocks with seeds of their own, whose counts are kept as they are done: a stopped run goes
on where it was. A case is done after 5,000 simulations, or after ten minutes with at least 300.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from casetypes import ChanceTest, Interval
from claims import cases
from numpy.typing import NDArray
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "calibration.md"
SIMULATIONS = 5000
FEWEST = 300
MINUTES = 10.0
BLOCK = 50
LEVELS = (0.05, 0.01)
REACHED, TOO_LOW = 0.94, 0.92

Counts = dict[str, int]
Drawn = NDArray[np.float64]


def simulate(case: Interval | ChanceTest, n: int, *, block: int = 0) -> Counts:
    """Run one block of simulations of a case; the same block is the same numbers.

    Returns:
        Of an interval: n and hits, those without an interval left out. Of a test: n, given (with a p value),
        and how often it is at most a level under the null, and at most 0.05 with the effect.
    """
    return counted(case, drawn(case, n, block=block))


def drawn(case: Interval | ChanceTest, n: int, *, block: int = 0) -> Drawn:
    """(n, 2) ends of intervals, or p values under the null and with the effect; NaN for none."""
    rng = np.random.default_rng([crc32(case.name.encode()), block])
    if isinstance(case, Interval):
        return np.array([case.draw(rng) for _ in range(n)], dtype=np.float64)
    null = [case.null(rng) for _ in range(n)]
    return np.array([null, [case.alternative(rng) for _ in range(n)]], dtype=np.float64).T


def counted(case: Interval | ChanceTest, values: Drawn) -> Counts:
    """Counts of a block of simulations."""
    if isinstance(case, Interval):
        truth, ends = case.truth(), values[np.isfinite(values).all(axis=1)]
        return {"n": len(ends), "hits": int(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).sum())}
    null, power = values.T
    found = {"n": len(null), "given": int(np.isfinite(null).sum())}
    found |= {f"at_{level}": int((null <= level).sum()) for level in LEVELS}
    return found | {"power": int((power <= LEVELS[0]).sum())}


def checksum(values: Drawn) -> int:
    """Of what was drawn, to six digits: the same on any machine, and another after a change that matters."""
    return crc32(" ".join(f"{value:.6g}" for value in values.ravel()).encode())


def limits(hits: int, n: int, *, confidence: float = 0.99) -> tuple[float, float]:
    """Exact binomial interval of a share (Clopper and Pearson)."""
    found = stats.binomtest(hits, n).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def verdict(case: Interval | ChanceTest, counts: Counts) -> str:
    """What the counts say: ok, or what is wrong.

    An interval is ok where the 99 % interval of its coverage reaches 0.94 and excludes values below 0.92;
    with few simulations the second cannot be, and is said. A test is ok where the 99 % lower bound of its
    rate is at most the level.
    """
    if isinstance(case, ChanceTest):
        over = [f"{level:g}" for level in LEVELS if limits(counts[f"at_{level}"], counts["n"])[0] > level]
        return f"too often at {', '.join(over)}" if over else "ok"
    low, high = limits(counts["hits"], counts["n"])
    if high < REACHED:
        return "misses"
    if case.conservative is not None:
        return f"conservative, {case.conservative:g} times the width"
    return "ok" if low >= TOO_LOW else "ok so far"


def run(state: Path, *, hours: float, only: str | None) -> None:
    """Simulate what is not done yet, block by block, until all are done or the time is over.

    The case that has taken the least time is next, so that a run that is stopped early has many simulations
    of what is cheap and some of everything. What an earlier run has done of a case counts if its first block
    is the same again: all of a page is of one version.
    """
    end = time.monotonic() + 3600 * hours
    state.parent.mkdir(parents=True, exist_ok=True)
    if state.exists() and not state.read_text(encoding="utf-8").endswith("\n"):
        with state.open("a", encoding="utf-8") as file:  # a line that was cut off
            file.write("\n")
    chosen = {name: case for name, case in cases().items() if only is None or only in name}
    done = {name: [one for one in lines(state) if one["case"] == name] for name in chosen}
    stale = {name for name, blocks in done.items() if blocks and not _still(chosen[name], blocks)}
    if stale:
        kept = [json.dumps(one) + "\n" for one in lines(state) if one["case"] not in stale]
        state.write_text("".join(kept), encoding="utf-8")
        done |= {name: [] for name in stale}
    while waiting := [name for name in chosen if not _enough(done[name])]:
        if time.monotonic() > end:
            return
        name = min(waiting, key=lambda one: _seconds(done[one]))
        began, block = time.process_time(), len(done[name])
        values = drawn(chosen[name], BLOCK, block=block)
        line = {
            "case": name,
            "block": block,
            "seconds": time.process_time() - began,
            "drawn": checksum(values),
            "counts": counted(chosen[name], values),
        }
        with state.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        done[name].append(line)


def _still(case: Interval | ChanceTest, blocks: list[dict[str, Any]]) -> bool:
    """Whether a case draws what it drew when its first block was done."""
    return bool(blocks[0].get("drawn") == checksum(drawn(case, BLOCK, block=blocks[0]["block"])))


def _seconds(blocks: list[dict[str, Any]]) -> float:
    return float(sum(block["seconds"] for block in blocks))


def _enough(blocks: list[dict[str, Any]]) -> bool:
    n = BLOCK * len(blocks)
    return n >= SIMULATIONS or (_seconds(blocks) > 60 * MINUTES and n >= FEWEST)


def lines(state: Path) -> list[dict[str, Any]]:
    """The blocks that are done; a line that was cut off is none."""
    found = []
    if state.exists():
        for text in state.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(text))
            except json.JSONDecodeError:
                continue
    return found


def totals(state: Path) -> dict[str, Counts]:
    """Counts of each case over its blocks."""
    found: dict[str, Counts] = {}
    for line in lines(state):
        sums = found.setdefault(line["case"], {})
        for key, value in line["counts"].items():
            sums[key] = sums.get(key, 0) + value
    return found


def page(found: dict[str, Counts]) -> str:
    """The page of the calibration."""
    intervals, tests = [], []
    for name, case in cases().items():
        counts = found.get(name)
        if not counts or not counts["n"]:
            continue
        n = counts["n"]
        if isinstance(case, Interval):
            low, high = limits(counts["hits"], n)
            intervals.append(
                f"| {name} | {case.setting} | {n:,} | {counts['hits'] / n:.3f} | {low:.3f} to {high:.3f} "
                f"| {verdict(case, counts)} |"
            )
        else:
            rates = [counts[f"at_{level}"] / n for level in LEVELS]
            tests.append(
                f"| {name} | {case.setting} | {n:,} | {counts['given'] / n:.2f} | {rates[0]:.3f} "
                f"| {rates[1]:.4f} | {counts['power'] / n:.2f} ({case.effect}) | {verdict(case, counts)} |"
            )
    missing = [name for name in cases() if name not in found]
    not_run = f"\nNot simulated yet: {', '.join(missing)}.\n" if missing else ""
    return _TEXT.format(intervals="\n".join(intervals), tests="\n".join(tests), not_run=not_run)


_TEXT = """# Calibration

<!-- Written by tests/calibration/calibrate.py; do not edit. -->

How often the intervals of the house hold the truth, and how often its p values reject where there is nothing
to find, in simulations with known answers at the default settings. `make calibrate` repeats them (at most
two hours; stopped, it goes on where it was), `make test-calibration` a sample with fixed seeds. Each interval
and p value of a result table, of a landscape and of the studies stands on one of these rows
(`tests/calibration/claims.py`); a test fails when one has none. What missed was mended, or is a spread.

## Intervals of 95 %

Coverage with its 99 % binomial interval. *ok*: that interval reaches 0.94 and excludes values below 0.92;
*ok so far*: it reaches 0.94, and the simulations are too few for the rest; *conservative*: wider than the
ideal, as labelled.

| interval | simulated | simulations | coverage | 99 % | |
|---|---|---:|---:|---:|---|
{intervals}

## p values

Given: share of null data for which there is a p value at all. Rates: how often it is at most 0.05 and 0.01
under the null, over all data. Power at 0.05 with the effect in brackets. *ok*: the 99 % lower bounds of both
rates are at most their levels. What findings call a clear distance from a null model is a test at 0.05 only.

| test | simulated | simulations | given | rate at 0.05 | rate at 0.01 | power | |
|---|---|---:|---:|---:|---:|---|---|
{tests}
{not_run}
## No intervals

- E over samples for the rules `mean`, `mean_abs`, `majority` and `contribution`: percentiles over resamples
  hold the count of the population 81 to 99 % of the time, so they are called `spread_low` and `spread_high`;
  for `any` 0 to 5 %, and it has none.
- Bands of percolation and concept curves (`giant_spread_low`, `random_spread_low`): percentiles over orders.
- The negative mass of a Hessian's spectrum (biased), residuals along a trajectory (steps of one run), and
  information at its ceiling or by a trained critic (`mine`, a lower bound): a value, and no ends.
- What a circuit keeps (`spread_low`): the samples chose its units. Thresholds and middles of one training run
  (`threshold_spread_low`): its steps are autocorrelated, and at 0.5 and 0.8 such ends hold the truth 0.75 and
  0.55 of the time. Replicates that are all equal: they have no spread, which makes nothing certain.
- Ranks less the ranks of a confounder (`partial_spearman`): an effect; a p value of it rejects 0.05 to 0.87
  of independent pairs. Changes where skills emerge: a difference and its spread over shifts.
"""


def main() -> None:
    """Simulate, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0, help="stop after this time")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "calibration.jsonl")
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--page", action="store_true", help="write the page from what is done")
    arguments = parser.parse_args()
    if not arguments.page:
        run(arguments.state, hours=arguments.hours, only=arguments.only)
    PAGE.write_text(page(totals(arguments.state)), encoding="utf-8")


if __name__ == "__main__":
    main()
