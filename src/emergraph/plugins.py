"""Plug-ins: analyses and formats of other packages.

A package declares them as entry points of the groups `emergraph.analyses` and `emergraph.formats`. Only what
is installed in the environment's site-packages counts: a `.dist-info` in the working folder, in PYTHONPATH or
beside a model is not looked at, and a module there is not imported in place of an installed one. Names are
read from metadata; a plug-in is imported when its analysis or format is asked for.
"""

import importlib
import os
import re
import site
import sys
import sysconfig
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from emergraph.errors import InvalidInputError
from emergraph.safetext import escape_controls, shorten

ANALYSES = "emergraph.analyses"
FORMATS = "emergraph.formats"
OFF = "EMERGRAPH_NO_PLUGINS"
"""Environment variable that leaves all plug-ins out; child processes inherit it."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_SHOWN = 200
"""Characters of a message of a plug-in that are shown."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plug-in as its package's metadata declare it."""

    name: str
    """Of the analysis or format."""
    group: str
    package: str
    """Name and version of the package that brings it."""
    target: str
    """Where it is, such as `package.module:attribute`."""

    def load(self) -> object:
        """Import the plug-in, and nothing from outside the environment's site-packages.

        Raises:
            InvalidInputError: It cannot be imported.
        """
        module, _, attribute = self.target.partition(":")
        try:
            with _installed_modules_only():
                found: object = importlib.import_module(module)
                for part in attribute.split(".") if attribute else ():
                    found = getattr(found, part)
        except (Exception, SystemExit) as error:
            raise self.broken(f"{type(error).__name__}: {error}") from error
        return found

    def broken(self, why: str) -> InvalidInputError:
        """Return the error of a plug-in that cannot be used."""
        said = shorten(escape_controls(" ".join(why.split())), _SHOWN)
        return InvalidInputError(
            f"plug-in {self.name} of {self.package} cannot be used: {said}; update or remove the package, "
            "or add --no-plugins"
        )


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """The plug-ins of a group."""

    found: tuple[Plugin, ...]
    """By name, in alphabetical order."""
    refused: tuple[str, ...] = ()
    """One line for each that is left out, with the reason."""


def switch_off() -> None:
    """Leave all plug-ins out, in this process and its children."""
    os.environ[OFF] = "1"


def plugins(group: str, *, taken: Collection[str]) -> Plugins:
    """Return the plug-ins that the environment holds; none is imported.

    Args:
        group: `ANALYSES` or `FORMATS`.
        taken: Names of what is built in, which no plug-in replaces.
    """
    if os.environ.get(OFF, "0") not in ("", "0"):
        return Plugins(found=())
    by_name: dict[str, list[Plugin]] = {}
    for plugin in _declared(group):
        by_name.setdefault(plugin.name, []).append(plugin)
    found: list[Plugin] = []
    refused: list[str] = []
    for name, many in sorted(by_name.items()):
        packages = ", ".join(sorted({plugin.package for plugin in many}))
        shown = shorten(escape_controls(name), 40)
        if not _NAME.fullmatch(name):
            refused.append(
                f"plug-in {shown!r} of {packages}: a name is lower-case letters, digits and hyphens"
            )
        elif name in taken:
            refused.append(f"plug-in {name} of {packages}: the name is built in and stays what it is")
        elif len(many) > 1:
            refused.append(f"plug-in {name}: declared twice, by {packages}; remove one of them")
        else:
            found.append(many[0])
    return Plugins(found=tuple(found), refused=tuple(refused))


def _declared(group: str) -> Iterator[Plugin]:
    """The entry points of a group in site-packages; the first of two installations of a package counts."""
    import importlib.metadata  # 10 ms, for those who ask only

    seen: set[str] = set()
    for distribution in importlib.metadata.distributions(path=site_folders()):
        with suppress(OSError, UnicodeDecodeError):
            if f"[{group}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = escape_controls(str(distribution.metadata["Name"]))
            if name in seen:
                continue
            seen.add(name)
            package = f"{name} {escape_controls(str(distribution.version))}"
            for entry in distribution.entry_points.select(group=group):
                yield Plugin(name=entry.name, group=group, package=package, target=entry.value)


def site_folders() -> list[str]:
    """Return the folders that hold the environment's installed packages."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return list(dict.fromkeys(folders))


@contextmanager
def _installed_modules_only() -> Iterator[None]:
    """Import from the standard library and site-packages, whatever else is on the path."""
    before = sys.path
    installed = [*_standard_library(), *site_folders(), *_linked_folders()]
    sys.path = list(dict.fromkeys(installed))
    try:
        yield
    finally:
        sys.path = before


def _standard_library() -> list[str]:
    library = Path(sysconfig.get_path("stdlib"))
    folders = (library, Path(sysconfig.get_path("platstdlib")), library / "lib-dynload")
    own = {os.path.realpath(folder) for folder in folders}
    packed = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    return [entry for entry in sys.path if os.path.realpath(entry) in own or entry.endswith(f"/{packed}")]


def _linked_folders() -> Iterator[str]:
    """Folders that site-packages name in `.pth` files, as editable installations do."""
    for folder in map(Path, site_folders()):
        for file in sorted(folder.glob("*.pth")):
            with suppress(OSError, UnicodeDecodeError):
                for line in file.read_text(encoding="utf-8").splitlines():
                    named = folder / line.strip()
                    if line.strip() and not line.startswith(("#", "import ", "import\t")) and named.is_dir():
                        yield str(named)
