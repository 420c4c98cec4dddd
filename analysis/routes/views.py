"""What is shown of paths."""

from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.view import View

if TYPE_CHECKING:
    from emergraph.analysis.routes.routes import PathsResult

MOST_NAMED = 8


def paths_view(result: "PathsResult") -> View:
    """The paths that were named, one per row, and what reaches what."""

    def named(unit: int) -> str:
        return f"{result.layer_of[unit]}:{result.position_of[unit]}"

    rows = [
        {
            "path": path,
            "rank": rank,
            "strength": group["strength"][0],
            "units": " > ".join(map(named, group["unit"])),
        }
        for (path, rank), group in result.paths.group_by("path", "rank", maintain_order=True)
    ]
    facts: dict[str, object] = {
        "graph": result.graph,
        "starts": f"{result.n_starts}, {result.reaching} of them reach an end",
        "ends": f"{result.n_ends}, {result.reached} of them are reached",
        "pairs with a path": result.n_pairs,
    }
    if result.cut is not None:
        few = ", ".join(named(unit) for unit in result.cut[:MOST_NAMED])
        more = ", ..." if len(result.cut) > MOST_NAMED else ""
        facts["smallest cut"] = f"{len(result.cut)} units: {few}{more}" if result.cut else "0 units: no path"
    listed = result.pairs.height
    notes = [] if result.no_cut is None else [f"no smallest cut: {result.no_cut}"]
    if listed < result.n_pairs:
        notes.append(f"the first {listed} of {result.n_pairs} pairs are kept")
    schema = {"path": pl.String, "rank": pl.Int64, "strength": pl.Float64, "units": pl.String}
    frame = pl.DataFrame(rows, schema=schema).fill_nan(None)
    said = (
        f"{result.reaching} of {result.n_starts} starts reach {result.reached} of {result.n_ends} ends"
        if result.n_pairs
        else f"None of the {result.n_starts} starts reaches any of the {result.n_ends} ends"
    )
    if result.cut:
        said += f"; without {len(result.cut)} unit{'s' * (len(result.cut) > 1)} between them, none does"
    return View(finding=f"{said}.", rows=frame, facts=facts, document=result.to_dict(), notes=notes)
