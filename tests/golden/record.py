"""Write the goldens again, and say what changed: `python tests/golden/record.py [NAME ...]`.

A golden that changes is a finding to explain in the CHANGELOG; `make golden` is not a way to a green test.
"""

import sys
import tempfile
from pathlib import Path

import golden
import making


def main(names: list[str]) -> None:
    """Write the named goldens, all by default."""
    for name, make in cases().items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = make(Path(folder))
        lines = golden.differences(golden.read(name), found) if golden.path_of(name).exists() else ["new"]
        print(f"{name}: {len(lines)} differences", *lines[:40], sep="\n  ")
        golden.write(name, found)


def cases():
    """Return a maker for each golden, by name."""
    models = {
        name: (lambda folder, path=path, options=options: making.model(path, folder, *options))
        for name, path, options in making.third_party()
    }
    return {"demo": making.demo, **models}


if __name__ == "__main__":
    main(sys.argv[1:])
