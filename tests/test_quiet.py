"""Reports of libraries are off before the library can be imported."""

import os
import subprocess
import sys

import pytest

from emergraph.exporters.runtime.engine import onnxruntime
from emergraph.quiet import NO_TELEMETRY

SHOW = "import os; print(os.environ.get('ORT_DISABLE_TELEMETRY'))"


@pytest.mark.parametrize("before", ["0", "1", "", None])
@pytest.mark.parametrize("module", ["emergraph", "emergraph.cli.main", "emergraph.exporters.runtime.worker"])
def test_importing_anything_of_emergraph_silences_its_process(module, before):
    given = {name: value for name, value in os.environ.items() if name not in NO_TELEMETRY}
    given |= {} if before is None else dict.fromkeys(NO_TELEMETRY, before)
    code = f"import sys, {module}; assert 'onnxruntime' not in sys.modules; {SHOW}"
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_the_import_of_onnxruntime_silences_it_again(monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert onnxruntime().InferenceSession
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
