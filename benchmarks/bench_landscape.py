"""Races of the landscape engine beside what a user would pick instead.

Race A: a 41 x 41 loss plane of an MLP (26 122 parameters, 1024 samples), its minima, merge tree and SMAD,
beside landscaper 1.3.1. Race B: the five largest Hessian eigenvalues of the MLP after 60 Adam steps, to a
relative error of 1e-3, beside curvlinops 3.0.1 with eigsh; the error against a tight solution is printed
beside every time.

    python benchmarks/bench_landscape.py --landscaper ENV_A/bin/python --curvlinops ENV_B/bin/python

The rivals need environments of their own: `landscaper==1.3.1 torch "numpy<2"` and
`curvlinops-for-pytorch==3.0.1 torch scipy`. Without them only emergraph's own figures are printed.
Contestants take turns; minimum, median and maximum of the rounds are shown in seconds. CPU time counts all
threads; on a busy machine it and one thread (`--threads 1`) say more than wall time.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "landscape"))

from race import Contestant, race, summary, train_mlp

DISTANCE = 0.5
STEPS = 41


def step_directions(weights: np.ndarray, sizes: list[int], raw: np.ndarray) -> np.ndarray:
    """The step between neighbouring points as landscaper makes it from a raw direction."""
    step, at = raw.astype(np.float64), 0
    for size in sizes:
        part = step[at : at + size]
        part *= np.sqrt(size) / (np.linalg.norm(part) + 1e-10)
        at += size
    reach = np.linalg.norm(weights) * DISTANCE / (STEPS / 2)
    return (step * reach / np.linalg.norm(step)).astype(np.float32)


def race_plane(folder: Path, arguments: argparse.Namespace) -> None:
    work = train_mlp(arguments.threads, steps=300)
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((2, work["weights"].size)).astype(np.float32)
    sizes = [64 * 128, 128, 128 * 128, 128, 128 * 10, 10]
    d1, d2 = (step_directions(work["weights"], sizes, r) for r in raw)
    file = folder / "plane.npz"
    np.savez(
        file, raw1=raw[0], raw2=raw[1], d1=d1, d2=d2, distance=DISTANCE, topology=arguments.topology, **work
    )
    contestants = [Contestant.start("emergraph", sys.executable, "plane_emergraph.py", file)]
    if arguments.landscaper:
        contestants.append(Contestant.start("landscaper", arguments.landscaper, "plane_landscaper.py", file))
    rounds = {"emergraph": arguments.rounds, "landscaper": arguments.rounds if not arguments.topology else 2}
    results = race(contestants, {c.name: rounds[c.name] for c in contestants})
    for contestant in contestants:
        contestant.stop()
    print(f"Race A: {STEPS} x {STEPS} plane, {work['weights'].size} parameters, {arguments.threads} threads")
    print(f"  variant: {results['emergraph'][0]['variant']}")
    for name, found in results.items():
        for key in ("plane", "plane cpu", "topology", "total"):
            if found[0][key] is not None and (key != "total" or found[0]["topology"] is not None):
                print(f"  {name:12s} {key:9s} {summary(found, key)}")
    if "landscaper" in results:
        ours, theirs = (np.array(results[name][0]["losses"]) for name in ("emergraph", "landscaper"))
        # landscaper adds random noise to the largest cell.
        apart = np.abs(ours - theirs)
        apart[np.unravel_index(np.argmax(theirs), theirs.shape)] = 0
        apart[np.unravel_index(np.argmax(ours), ours.shape)] = 0
        print(f"  largest difference of losses: {apart.max():.1e}")
        for key in ("plane", "plane cpu", "total"):
            fast, slow = (min(r[key] for r in results[name]) for name in ("emergraph", "landscaper"))
            if key != "total" or arguments.topology:
                print(f"  {key}: {slow / fast:.2f} times as fast")


def race_eigenvalues(folder: Path, arguments: argparse.Namespace) -> None:
    work = train_mlp(arguments.threads, steps=60)
    common = {**work, "rival_tolerance": 0.0}
    np.savez(folder / "tight.npz", tolerance=1e-6, **common)
    tight = Contestant.start("tight", sys.executable, "eigen_emergraph.py", folder / "tight.npz")
    truth = np.array(tight.run()["values"])
    tight.stop()
    np.savez(folder / "eigen.npz", tolerance=arguments.tolerance, **common)
    np.savez(folder / "eigen_loose.npz", tolerance=arguments.tolerance, **{**work, "rival_tolerance": 1e-3})
    contestants = [Contestant.start("emergraph", sys.executable, "eigen_emergraph.py", folder / "eigen.npz")]
    if arguments.curvlinops:
        for name, file in (("curvlinops", "eigen.npz"), ("curvlinops, tol 1e-3", "eigen_loose.npz")):
            contestants.append(
                Contestant.start(name, arguments.curvlinops, "eigen_curvlinops.py", folder / file)
            )
    results = race(contestants, {c.name: arguments.rounds for c in contestants})
    for contestant in contestants:
        contestant.stop()
    print(f"Race B: five largest Hessian eigenvalues, {work['weights'].size} parameters, after 60 Adam steps")
    for name, found in results.items():
        error = np.max(np.abs(np.array(found[0]["values"]) - truth) / truth)
        print(f"  {name:21s} {summary(found, 'seconds')}   relative error {error:.1e}")
        print(f"  {'':17s} cpu {summary(found, 'cpu')}")
    for name in list(results)[1:]:
        wall, cpu = (
            min(r[key] for r in results[name]) / min(r[key] for r in results["emergraph"])
            for key in ("seconds", "cpu")
        )
        print(f"  {wall:.2f} times as fast as {name}, {cpu:.2f} times in CPU time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--landscaper", help="interpreter with landscaper 1.3.1, torch and numpy < 2")
    parser.add_argument("--curvlinops", help="interpreter with curvlinops 3.0.1, torch and scipy")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tolerance", type=float, default=1e-3, help="residual demanded of race B")
    parser.add_argument(
        "--no-topology", dest="topology", action="store_false", help="landscaper takes 35 s for it"
    )
    parser.add_argument("--only", choices=("plane", "eigenvalues"), help="one of the two races")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.only != "eigenvalues":
            race_plane(Path(name), arguments)
        if arguments.only != "plane":
            race_eigenvalues(Path(name), arguments)


if __name__ == "__main__":
    main()
