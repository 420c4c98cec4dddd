"""The three notebooks, as scripts; running this file executes them and writes them with their outputs.

`python docs/notebooks/make_notebooks.py` writes the `.ipynb` files beside it. A test executes the same cells.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
SETUP = (
    "# A scratch folder, so that nothing is left behind.\nimport os, tempfile\nos.chdir(tempfile.mkdtemp())"
)
NOTEBOOKS = {
    "third-party-file": [
        "# A third-party model\n\nsilero-vad finds speech in audio. From its ONNX file to a graph, "
        "its emergence, and a question in SQL. The path is where `make models` puts the file.",
        SETUP + "\nfrom pathlib import Path\nimport numpy as np\nimport emergraph\n\n"
        "folder = Path(os.environ.get('EMERGRAPH_MODELS') or Path.home() / '.cache/emergraph/models')\n"
        "model = folder / 'silero-vad/silero_vad/data/silero_vad.onnx'\n"
        "graph = emergraph.export(model, 'vad.duckdb', inputs={'sr': np.asarray(16000)})\ngraph",
        "The file holds two networks, for 8 and 16 kHz; `sr` decided which one was traced. Activity needs inputs: "
        "random ones will do to look around, but say little about speech.",
        "graph.trace(random=64, model=model, inputs={'sr': np.asarray(16000)})\n"
        "graph.emergence(threshold=0.05)",
        "One threshold says little; the sweep says where the number comes from.",
        "sweep = graph.emergence(thresholds=40)\nsweep.frame.gather_every(8)",
        "from IPython.display import SVG\n_ = graph.plot('emergence-sweep', out='sweep.svg')\nSVG('sweep.svg')",
        "Everything is in one DuckDB file. Which layers hold the parameters?",
        "emergraph.open('vad.duckdb').sql('''\nSELECT name, kind, n_units, n_params FROM layers WHERE n_params > 0\n"
        "ORDER BY n_params DESC\n''')",
    ],
    "training-run": [
        "# A training run, step by step\n\nA small network learns exclusive or; a recorder keeps its graph, activations "
        "and loss. Needs `pip install 'emergraph[torch]'`.",
        SETUP
        + "\nimport warnings\nwarnings.simplefilter('ignore')\nimport torch\nimport emergraph\n\ntorch.manual_seed(0)\n"
        "torch.set_num_threads(1)\n"
        "x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).repeat(8, 1)\n"
        "y = (x[:, 0] != x[:, 1]).float()[:, None]\n"
        "net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))",
        "optimizer = torch.optim.Adam(net.parameters(), lr=0.05)\n"
        "with emergraph.record(net, 'run.duckdb', inputs=x, name='xor') as rec:\n"
        "    for step in range(61):\n"
        "        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x), y)\n"
        "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n"
        "        if step % 20 == 0:\n            rec.step(step, loss=loss.item())\n"
        "store = emergraph.open('run.duckdb')\nstore.graphs.select('id', 'name', 'step', 'n_units', 'n_edges')",
        "Emergence of every snapshot, beside its loss: both from the store.",
        "for number in store.graphs['id']:\n    store.graph(number).emergence(threshold=0.05)\n"
        "store.sql('''\nSELECT g.step, round(m.\"value\", 3) AS loss, e.emergence\n"
        "FROM graphs AS g JOIN metrics AS m ON m.graph = g.id AND m.name = 'loss'\n"
        "JOIN runs AS r ON r.graph = g.id JOIN emergence AS e ON e.run = r.id AND e.interior = 'any'\nORDER BY g.step\n''')",
        "What changed between the first and the last snapshot, unit by unit?",
        "difference = store.graph(rec.graphs[0]).diff(store.graph(rec.graphs[-1]))\n"
        "difference.tensors.select('tensor_a', 'relative_change', 'sign_flips', 'cosine')",
        "difference.units.head(5)",
    ],
    "pruning-decision": [
        "# How far can a network be pruned?\n\nThe demo's convolutional network reads digits. First the graph alone, then the "
        "pruned models themselves on images that they were not trained on.",
        SETUP + "\nimport emergraph\nfrom importlib.resources import files\n\n"
        "demo = files('emergraph.cli') / 'demo-data'\nmodel = str(demo / 'digits_conv.onnx')\n"
        "graph = emergraph.export(model, 'net.duckdb')\n_ = graph.trace(str(demo / 'digits.npz'), model=model)",
        "levels = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)\nasked = graph.prune(levels=levels)\n"
        "asked.frame.select('level', 'density', 'effective_sparsity', 'new_dead_units', 'log10_emergence_any')",
        "The graph alone does not know what the network is for. With the model, inputs and labels, the pruned models run.",
        "import numpy as np\n"
        "inputs = dict(np.load(str(demo / 'digits.npz')))\nlabels = next(iter(np.load(str(demo / 'labels.npz')).values()))\n"
        "ran = graph.prune(levels=levels, files=emergraph.ModelFiles(model=model, inputs=inputs, labels=labels))\n"
        "ran.frame.select('level', 'density', 'accuracy', 'argmax_agreement')",
        "from IPython.display import SVG\n_ = graph.plot('pruning', out='pruning.svg')\nSVG('pruning.svg')",
        "The decision: the largest level that loses at most two percentage points.",
        "kept = ran.frame.filter(ran.frame['accuracy'] >= ran.frame['base_accuracy'] - 0.02)\n"
        "f\"prune {kept['level'].max():.0%} of the weights\"",
    ],
}
"""Cells by notebook: the first and every cell that does not read like code is text."""
_CODE = re.compile(r"(^|\n)(import |from |[\w.]+ ?= |with |for |emergraph\.|graph\.|difference\.|f\")")


def notebook(name: str) -> nbformat.NotebookNode:
    """Return a notebook without outputs."""
    cells = [
        (nbformat.v4.new_code_cell if _CODE.search(text) else nbformat.v4.new_markdown_cell)(text)
        for text in NOTEBOOKS[name]
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )


def executed(name: str) -> nbformat.NotebookNode:
    """Return a notebook after running all of its cells.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    made = notebook(name)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            made,
            timeout=300,
            startup_timeout=240,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        ).execute()
    for cell in made.cells:
        cell.get("metadata", {}).pop("execution", None)
    return made


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NOTEBOOKS:
        nbformat.write(executed(chosen), HERE / f"{chosen}.ipynb")
