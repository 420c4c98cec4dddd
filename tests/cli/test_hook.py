"""`python -m emergraph.cli.hook`: a repository with one clean model, one hostile one, and other files."""

import os
import pickle
import shutil

import pytest
from clifiles import DEMO

from emergraph.cli import hook


class Runs:
    def __reduce__(self):
        return os.system, ("echo ran",)


@pytest.fixture
def repository(tmp_path):
    """Files of a repository."""
    shutil.copy(DEMO / "digits_conv.onnx", tmp_path / "clean.onnx")
    (tmp_path / "weights.bin").write_bytes(pickle.dumps(Runs()))
    (tmp_path / "readme.md").write_text("# a page\n")
    (tmp_path / "pointer.onnx").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12\n"
    )
    return tmp_path


def test_models_are_known_by_their_bytes_or_their_names(repository):
    (repository / "table.csv").write_text("a,b\n1,2\n")
    models = {file.name for file in repository.iterdir() if hook.is_model(file)}
    assert models == {"clean.onnx", "weights.bin", "pointer.onnx"}


def test_a_clean_model_passes_and_others_are_left_alone(repository, capfd):
    files = [repository / "clean.onnx", repository / "readme.md"]
    assert hook.main([*map(str, files), "--budget", "20s"]) == 0
    assert capfd.readouterr().out == (
        "0 of 1 model files have findings at or above 'warning'; 1 other file left alone\n"
    )


def test_hostile_files_fail_and_are_annotated(repository, capfd):
    files = [repository / "weights.bin", repository / "pointer.onnx"]
    assert hook.main([*map(str, files), "--github"]) == 1
    first, second, last = capfd.readouterr().out.splitlines()
    assert first.startswith(f"::error file={repository / 'weights.bin'},title=PICKLE-CODE::")
    assert second.startswith(f"::error file={repository / 'pointer.onnx'},title=FILE-FORMAT::")
    assert "Git LFS" in second
    assert last.startswith("2 of 2 model files have findings")


def test_a_name_cannot_make_a_command_of_its_own(tmp_path, capfd):
    hostile = tmp_path / "a,b%\n::set-output name=x::y.onnx"
    hostile.write_bytes(b"nothing")
    assert hook.main([str(hostile), "--github"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("::set-output")] == []
    assert f"file={tmp_path}/a%2Cb%25%0A%3A%3Aset-output name=x%3A%3Ay.onnx,title=" in lines[0]
