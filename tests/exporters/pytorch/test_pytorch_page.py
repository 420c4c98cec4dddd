"""The page about PyTorch says what happens: its examples run."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "pytorch.md"


def test_examples_of_the_page_run(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    outputs = []
    with contextlib.chdir(tmp_path):
        for code in blocks:
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(code, str(PAGE), "exec"), {})
            outputs.append(output.getvalue())
    assert outputs[:2] == ["['input', '0', '2']\n", "none\n"]
    assert "0.333333" in outputs[2]
    assert "shape: (3, 2)" in outputs[2]
