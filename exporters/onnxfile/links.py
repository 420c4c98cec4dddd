"""Symbolic links that a file or folder of a model consists of: followed inside a folder that the user names.

A download cache keeps files as links to blobs, so links do not indicate an attack; a link out of the model's
folder may still lead to any file of the user. So each is refused unless it leads to somewhere below a root.
"""

import os
from pathlib import Path

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.findings import refusal
from emergraph.exporters.onnxfile.names import printable


def is_below(target: Path, root: Path | None) -> bool:
    """Whether a path, once its links are resolved, lies below a folder that was named."""
    if root is None:
        return False
    return Path(os.path.realpath(target)).is_relative_to(os.path.realpath(root))


def root_for(link: Path) -> Path:
    """Return the folder that has to be named for a link to be followed: the smallest around both ends.

    Where only the whole file system holds both, it is the folder of the target.
    """
    target = Path(os.path.realpath(link))
    common = Path(os.path.commonpath([os.path.realpath(link.parent), target]))
    if common == Path(common.anchor):
        common = target.parent
    near = Path(os.path.relpath(common))
    return near if near.parts[:1] != ("..",) else common


def link_message(link: Path) -> str:
    """Say that a link is not followed, and how it would be."""
    root = printable(str(root_for(link)), 400)
    target = printable(str(Path(os.path.realpath(link))), 200)
    return f"a symbolic link to {target}; links that stay inside {root} are followed with --root {root}"


def refuse_link(finding_id: str, link: Path, where: str) -> EmergraphError:
    """Return the error for a link that is not followed."""
    return refusal(finding_id, link_message(link), where, root=str(root_for(link)))
