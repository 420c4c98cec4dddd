"""One network in several files: the same findings about it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from plantednets import audited_fast

from emergraph.analysis.audit.subject import Given

CACHE = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache" / "emergraph" / "models"))
SILERO = CACHE / "silero-vad" / "silero_vad" / "data"


class Net(torch.nn.Module):
    """A small network with units that are dead and units that are there twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(6, 20)
        self.second = torch.nn.Linear(20, 20)
        self.head = torch.nn.Linear(20, 4)
        with torch.no_grad():
            self.second.weight[3] = 0
            self.second.weight[9] = self.second.weight[8]
            self.second.bias[9] = self.second.bias[8]
            self.head.weight[:, 5] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def make() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """What `package.module:factory` gives."""
    return Net().eval(), (torch.zeros(1, 6),)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_a_module_and_its_export_have_the_same_findings_about_the_network(tmp_path):
    file = tmp_path / "netfile.py"
    file.write_text(
        f"from importlib.util import module_from_spec, spec_from_file_location\n"
        f"spec = spec_from_file_location('encodingsnet', {__file__!r})\n"
        f"module = module_from_spec(spec)\nspec.loader.exec_module(module)\nmake = module.make\n"
    )
    path = tmp_path / "net.onnx"
    torch.onnx.export(Net().eval(), (torch.zeros(1, 6),), str(path), dynamo=True, verbose=False)
    results = [audited_fast(f"{file}:make"), audited_fast(path)]
    fingerprints = [{f.fingerprint for f in r.about("network")} for r in results]
    assert fingerprints[0] == fingerprints[1]
    assert {f.id for f in results[0].about("network")} >= {"DEAD-UNREACHED", "DEAD-UNREAD", "TWIN-UNITS"}


@pytest.mark.models
def test_five_files_of_silero_have_the_same_findings_about_the_network():
    found = []
    for name in ("16k_op15", "16k_sequence", "openvino_16k", "", "op18_ifless"):
        values = {"sr": np.array(16000)} if name in ("", "op18_ifless") else {}
        path = SILERO / f"silero_vad{'_' * bool(name)}{name}.onnx"
        found.append(
            {(f.id, f.fingerprint) for f in audited_fast(path, Given(values=values)).about("network")}
        )
    assert all(one == found[0] for one in found)
    assert "DEAD-UNREACHED" in {id_ for id_, _ in found[0]}
