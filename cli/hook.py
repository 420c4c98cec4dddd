"""`python -m emergraph.cli.hook FILE...`: audit the model files among many, for pre-commit and for CI.

A file is audited where its bytes are those of a model or a pickle, and where its name says that it is one.
Exit code 0 where nothing at or above `--fail-on` was found, 1 where something was, or where a file cannot be
audited. With `--github`, findings are annotations of the file on GitHub, which its workflow commands make.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from emergraph.cli.output import say
from emergraph.errors import EmergraphError, ExitCode
from emergraph.exporters.formats.format import Inside, Reader
from emergraph.exporters.formats.registry import format_of
from emergraph.exporters.weightfiles.files import map_file
from emergraph.safetext import escape_controls

_NAMES = (".onnx", ".ort", ".pt", ".pth", ".ckpt", ".safetensors", ".gguf", ".pkl", ".pickle", ".joblib")
"""Of model files: what else they hold, such as a pointer of Git LFS, is a finding."""
_LEVELS = ("info", "warning", "error")
_GITHUB = {"info": "notice", "warning": "warning", "error": "error"}


def main(words: Sequence[str] | None = None) -> int:
    """Audit files and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m emergraph.cli.hook", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--fail-on", choices=_LEVELS, default="warning", help="severity (default warning)")
    parser.add_argument("--budget", default="60s", metavar="TIME", help="wall time per file (default 60s)")
    parser.add_argument("--github", action="store_true", help="write annotations for GitHub")
    options = parser.parse_args(words)
    models = [file for file in options.files if is_model(file)]
    failed = [file for file in models if not _passes(file, options)]
    others = len(options.files) - len(models)
    print(  # noqa: T201 - this is a program
        f"{len(failed)} of {len(models)} model files have findings at or above '{options.fail_on}'; "
        f"{others} other file{'' if others == 1 else 's'} left alone"
    )
    return int(ExitCode.FINDINGS if failed else ExitCode.OK)


def is_model(file: Path) -> bool:
    """Whether a file is one to audit, by its bytes or by its name."""
    if file.suffix.lower() in _NAMES:
        return True
    try:
        found = format_of(file.name, map_file(file, file.name).content)
    except (EmergraphError, OSError):
        return False
    return found.reader in (Reader.ONNX, Reader.WEIGHTS) or found.inside is Inside.PICKLE


def _passes(file: Path, options: argparse.Namespace) -> bool:
    name = escape_controls(str(file))
    audit = [sys.executable, "-P", "-m", "emergraph", "audit", str(file.absolute()), "--format", "json"]
    limits = ["--quiet", "--budget", options.budget, "--fail-on", options.fail_on]
    done = subprocess.run(  # noqa: S603 - this program
        [*audit, *limits], capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode not in (ExitCode.OK, ExitCode.FINDINGS):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        _show(options, file, "error", "NOT-AUDITED", last.removeprefix("Error: "))
        return False
    for found in json.loads(done.stdout)["findings"]:
        if _LEVELS.index(found["severity"]) >= _LEVELS.index(options.fail_on):
            _show(options, file, found["severity"], found["id"], f"{found['sentence']} {found['action']}")
    say(f"{name}: {'passes' if done.returncode == ExitCode.OK else 'has findings'}")
    return done.returncode == ExitCode.OK


def _show(options: argparse.Namespace, file: Path, severity: str, title: str, text: str) -> None:
    """One line; whatever stands in names and sentences cannot begin another one, or another command."""
    if options.github:
        place = _escaped(str(file), ":,")
        line = f"::{_GITHUB[severity]} file={place},title={_escaped(title, ':,')}::{_escaped(text)}"
    else:
        line = escape_controls(f"{file}: {severity} {title}: {text}")
    print(line)  # noqa: T201 - this is a program


def _escaped(text: str, more: str = "") -> str:
    """Text for a workflow command: what would end it is written as a percent sign and two digits."""
    for character in ("%", "\r", "\n", *more):
        text = text.replace(character, f"%{ord(character):02X}")
    return text


if __name__ == "__main__":
    sys.exit(main())
