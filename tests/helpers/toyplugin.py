"""A format plug-in whose module is a text, for tests without an installation."""

from dataclasses import dataclass

from emergraph.plugins import FORMATS, Plugin


@dataclass(frozen=True, kw_only=True)
class ToyPlugin(Plugin):
    """Runs its code where another imports a module."""

    name: str = "toy"
    group: str = FORMATS
    package: str = "toys 1.0"
    target: str = "toys:IT"
    code: str

    def load(self) -> object:
        """What the code calls IT."""
        names: dict[str, object] = {}
        try:
            exec(self.code, names)
        except Exception as error:
            raise self.broken(f"{type(error).__name__}: {error}") from error
        return names["IT"]
