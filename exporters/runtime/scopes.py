"""Names while a model is flattened: lexical scopes, and names that are unique over all of them."""

from collections.abc import Iterable

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.quoting import quoted


class UniqueNames:
    """Hands out names that were not handed out before."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def claim(self, name: str, prefix: str) -> str:
        """Return `name` if it is free, else one made of prefix and name that is."""
        candidate = name
        if candidate in self._used:
            candidate = f"{prefix}/{name}" if prefix else name
        count = 2
        stem = candidate
        while candidate in self._used:
            candidate = f"{stem}_{count}"
            count += 1
        self._used.add(candidate)
        return candidate


class Scope:
    """Maps the names that one graph or function body uses to flat names, with what is outside behind it."""

    def __init__(self, parent: "Scope | None" = None) -> None:
        self.parent = parent
        self.names: dict[str, str] = {"": ""}

    def bind(self, name: str, flat: str) -> None:
        """Let `name` mean the flat name `flat` in this scope and the scopes within."""
        if name in self.names:
            raise InvalidInputError(
                f"tensor {quoted(name)} is defined twice in one graph; expected every name to be defined once"
            )
        self.names[name] = flat

    def knows(self, name: str) -> bool:
        """Whether this very scope (not an outer one) binds the name."""
        return name in self.names

    def resolve(self, name: str, reader: str) -> str:
        """The flat name behind `name`; `reader` is what asks for it, for the error message."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        raise InvalidInputError(
            f"{quoted(reader)} reads tensor {quoted(name)}, which no operation, initializer or input defines"
        )

    def resolve_all(self, names: Iterable[str], reader: str) -> list[str]:
        """The flat names behind several names."""
        return [self.resolve(name, reader) for name in names]
