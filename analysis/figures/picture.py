"""A picture that was drawn as SVG rather than by Vega."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A complete SVG document, in the colours of the theme."""

    svg: str

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self.svg
