"""The documentation site: `make site` builds it offline from these pages, with a search of its own."""

from typing import Any

from emergraph.version import __version__

project = "emergraph"
copyright = "the emergraph authors"  # noqa: A001 - the name that Sphinx reads
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["notebooks/*.py", "pictures/*.py", "gallery/*", "study/**"]
html_theme = "furo"
html_title = f"emergraph {release}"
html_copy_source = False
html_extra_path = ["report.schema.json"]
smartquotes_action = "q"  # quotes only: two hyphens begin an option
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]
# links to code and results beside the pages are files of the repository, not pages of the site
suppress_warnings = ["myst.xref_missing"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
pygments_style = "friendly"


def _plain_text(_app: object, _what: str, _name: str, documented: object, *rest: Any) -> None:  # noqa: ANN401
    """Help texts of options are plain: their bars and stars are no markup."""
    lines: list[str] = rest[-1]
    if hasattr(documented, "options"):
        for place, line in enumerate(lines):
            if not line.startswith("    *objects"):
                lines[place] = line.replace("|", "\\|").replace("*", "\\*")


def setup(app: Any) -> None:  # noqa: ANN401 - Sphinx, which type checks need not have
    """Register what this site adds to Sphinx."""
    app.connect("autodoc-process-docstring", _plain_text, priority=400)
