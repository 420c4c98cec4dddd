"""What the server for assistants opens and answers; `tests/interop` speaks to it by the official client."""

import pytest

from emergraph.cli.commands.mcp import NOTE, Bounds, _within, answer
from emergraph.errors import EmergraphError, UsageError


def bounds(folder, *, rows=200, characters=50_000):
    return Bounds(
        folder=folder.resolve(),
        rows=rows,
        characters=characters,
        time_limit="60s",
        memory_limit="2GiB",
        seconds=60,
    )


def test_only_files_of_the_folder_are_named(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "model.onnx").write_bytes(b"x")
    (tmp_path / "outside.onnx").write_bytes(b"x")
    (inside / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    assert bounds(inside).file("model.onnx") == str(inside.resolve() / "model.onnx")
    for name in ("../outside.onnx", "link.onnx", str(tmp_path / "outside.onnx"), "/etc/passwd"):
        with pytest.raises(UsageError, match="outside the folder"):
            bounds(inside).file(name)
    with pytest.raises(UsageError, match="no such file"):
        bounds(inside).file("missing.onnx")


@pytest.mark.parametrize("name", ["net.py:make", "net.py", "package:factory"])
def test_nothing_that_stands_for_code_is_named(tmp_path, name):
    (tmp_path / name).write_text("raise SystemExit('this ran')")
    with pytest.raises(UsageError, match="stands for Python code"):
        bounds(tmp_path).file(name)


def test_an_answer_is_cut_to_its_bounds_and_says_so(tmp_path):
    whole = _within(bounds(tmp_path, rows=3), {"rows": [1, 2, 3]})
    assert whole == {"note": NOTE, "result": {"rows": [1, 2, 3]}}
    cut = _within(bounds(tmp_path, rows=3), {"rows": [1, 2, 3, 4]})
    assert cut["result"] == {"rows": [1, 2, 3]}
    assert cut["cut"] == ["rows: the first 3 of 4 entries"]
    large = _within(bounds(tmp_path, characters=1000), [{"name": "n" * 5000, "at": k} for k in range(20)])
    assert 0 < len(large["result"]) < 20
    assert large["cut"]
    assert len(large["result"][0]["name"]) == 1000


def test_a_query_runs_in_the_sandbox_of_the_command(exported):
    asked = bounds(exported.parent)
    query = "SELECT count(*) AS n FROM layers"
    assert answer(asked, "sql", [asked.file("net.duckdb"), "-"], text=query)["result"][0]["n"] > 0
    with pytest.raises(EmergraphError, match="read_csv is not available"):
        answer(asked, "sql", [asked.file("net.duckdb"), "-"], text="FROM read_csv('/etc/passwd')")
