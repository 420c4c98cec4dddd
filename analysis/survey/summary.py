"""What a survey says about a population: in one line, in a few facts, and as a page."""

import shlex
from datetime import UTC, datetime

import polars as pl

from emergraph.analysis.declaration import Caption
from emergraph.analysis.report.document import Page, Section, Table
from emergraph.analysis.survey.survey import SurveyResult
from emergraph.analysis.view import View
from emergraph.graphstore.sql import compose
from emergraph.version import __version__

_FAR = 3.5
"""Robust standard deviations from the median of a family at which a size is an outlier."""
_FAMILY = 8
"""Models that a family needs for that."""
_SHOWN = 50
"""Rows of the tables that a page shows."""


def finding(result: SurveyResult) -> str:
    """How many files there are, what is wrong with them, which are copies, and what to do next."""
    models, n_paths = result.models, result.paths.height
    if not n_paths:
        return "No model file was found; name a folder that holds some, or a list of paths."
    status = dict(models.group_by("status").len().iter_rows())
    wrong = [f"{status[name]} {said}" for name, said in _WRONG.items() if name in status]
    serious = models.filter(
        (pl.col("n_errors") + pl.col("n_warnings") > 0) & (pl.col("status") == "done")
    ).height
    copies = n_paths - models.height
    twins = copies_of_weights(models).height
    parts = [
        f"{n_paths:,} model files, {status.get('done', 0):,} of {models.height:,} different ones read",
        ", ".join(wrong) or "none refused or failed",
        f"{serious:,} with errors or warnings",
        f"{copies:,} copies" + (f" and {twins:,} with the weights of another" if twins else ""),
    ]
    return "; ".join(parts) + f". Next: {_next(result, status, serious)}"


_WRONG = {
    "refused": "refused as unsafe",
    "failed": "failed",
    "limit": "hit a limit",
    "unsupported": "of formats that are not read",
}


def _next(result: SurveyResult, status: dict[str, int], serious: int) -> str:
    """The command that looks at what matters most."""
    if status.get("limit") and not status.get("refused"):
        return "the same command with more --file-time or --file-memory"
    question = "FROM models"
    if found := next((name for name in ("refused", "failed") if status.get(name)), None):
        question = compose("SELECT name, reason FROM models WHERE status = '{status}'", status=found)
    elif serious:
        question = "SELECT * FROM findings WHERE severity <> 'info'"
    return f'emergraph sql {shlex.quote(str(result.lake))} "{question}"'


def survey_view(result: SurveyResult, page: str) -> View:
    """The survey for the command line."""
    models = result.models
    facts: dict[str, object] = {
        "model files": result.paths.height,
        "different": models.height,
        **{f"{name}": number for name, number in models.group_by("status").len().sort("status").iter_rows()},
        "bytes": int(result.paths["bytes"].sum()),
        "parameters": int(models["n_parameters"].sum()),
        "looked at now": result.looked_at,
        "seconds": round(result.seconds, 1),
        "page": page,
    }
    notes = []
    if result.others:
        shown = [f"{number:,} x {name}" for name, number in list(result.others.items())[:4]]
        notes.append(f"no models: {', '.join(shown)}" + (", ..." if len(result.others) > 4 else ""))
    if "links" in result.others:
        notes.append(
            "links are followed where they lead inside the folder of --root FOLDER, as in a download cache"
        )
    rows = models.select("name", "format", "status", "n_parameters", "n_errors", "n_warnings", "reason")
    document = {"finding": finding(result), **result.to_dict()}
    return View(finding=finding(result), facts=facts, rows=rows.sort("name"), document=document, notes=notes)


def survey_page(result: SurveyResult, title: str) -> Page:
    """The survey as a page about the population."""
    models = result.models
    sections = [
        Section(
            id="summary", title="Finding", lead=finding(result), facts=dict(survey_view(result, "").facts)
        ),
        _section(
            "problems",
            "What could not be read",
            "Files without a result, with the reason.",
            models.filter(pl.col("status") != "done")
            .select("name", "format", "status", "reason")
            .sort("status"),
        ),
        _section(
            "findings", "Findings", "How many files have which finding of the audit.", _findings(result)
        ),
        _section(
            "families",
            "Families",
            "What kinds of networks there are, by their operations.",
            _families(models),
        ),
        _section("formats", "Formats", "What the files are, by their content.", _formats(models)),
        _section(
            "outliers",
            "Outliers",
            f"Models further than {_FAR} robust standard deviations from the median size of their family, "
            "and those of which a part is not understood.",
            outliers(models),
        ),
        _section(
            "duplicates",
            "Duplicates",
            "Copies of one file, and files with the same weights.",
            _duplicates(result),
        ),
    ]
    return Page(
        kind="survey",
        title=title,
        tool_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sections=tuple(section for section in sections if section is not None),
    )


def _section(name: str, title: str, lead: str, frame: pl.DataFrame) -> Section | None:
    if not frame.height:
        return None
    shown = frame.head(_SHOWN)
    more = "" if frame.height <= _SHOWN else f" The first {_SHOWN} of {frame.height}."
    caption = Caption(name=name, title=title, definition=f"{lead}{more}")
    return Section(id=name, title=title, lead=lead, tables=(Table(spec=caption, frame=shown),))


def _findings(result: SurveyResult) -> pl.DataFrame:
    counted = result.findings.group_by("severity", "finding").agg(
        files=pl.col("file").n_unique(), example=pl.col("sentence").sort().first()
    )
    order = pl.col("severity").replace_strict({"error": 0, "warning": 1, "info": 2}, default=3)
    return counted.sort(order, -pl.col("files").cast(pl.Int64), "finding")


def _families(models: pl.DataFrame) -> pl.DataFrame:
    size = pl.col("n_parameters")
    return (
        models.filter(pl.col("status") == "done")
        .group_by(pl.col("family").fill_null("weights alone"))
        .agg(
            files=pl.len(),
            smallest=size.min(),
            median=size.median().cast(pl.Int64),
            largest=size.max(),
            understood=(pl.col("n_parameters_understood").sum() / size.sum()).round(4),
            zeros=(pl.col("n_zeros").sum() / size.sum()).round(4),
        )
        .sort("files", "family", descending=[True, False])
    )


def _formats(models: pl.DataFrame) -> pl.DataFrame:
    done = (pl.col("status") == "done").sum()
    return (
        models.group_by("format")
        .agg(files=pl.len(), read=done, bytes=pl.col("bytes").sum(), seconds=pl.col("seconds").sum().round(1))
        .sort("files", "format", descending=[True, False])
    )


def outliers(models: pl.DataFrame) -> pl.DataFrame:
    """Return models of unusual size for their family, and models that are understood in part."""
    known = models.filter((pl.col("status") == "done") & (pl.col("n_parameters") > 0))
    logs = known.with_columns(size=pl.col("n_parameters").log10(), family=pl.col("family").fill_null(""))
    middle = pl.col("size").median().over("family")
    spread = 1.4826 * (pl.col("size") - middle).abs().median().over("family")
    far = ((pl.col("size") - middle) / spread.clip(0.05)).round(1)
    logs = logs.with_columns(deviations=far, members=pl.len().over("family"))
    strange = logs.filter((pl.col("members") >= _FAMILY) & (pl.col("deviations").abs() > _FAR)).select(
        "name", "family", "n_parameters", why=pl.format("size {} deviations from its family", "deviations")
    )
    share = pl.col("n_parameters_understood") / pl.col("n_parameters")
    partial = logs.filter(share < 1).select(
        "name", "family", "n_parameters", why=pl.format("{} % understood", (100 * share).round(1))
    )
    return pl.concat([strange, partial]).sort("why", "name")


def copies_of_weights(models: pl.DataFrame) -> pl.DataFrame:
    """Return the models whose weights another file has, too, but the first of each."""
    with_weights = models.filter(pl.col("weights") != "").sort("name", "file")
    return with_weights.filter(pl.col("weights").is_duplicated() & ~pl.col("weights").is_first_distinct())


def _duplicates(result: SurveyResult) -> pl.DataFrame:
    def grouped(frame: pl.DataFrame, by: str, what: str, name: str) -> pl.DataFrame:
        found = frame.group_by(by).agg(pl.col(name).sort())
        found = found.filter(pl.col(name).list.len() > 1)
        return found.select(
            what=pl.lit(what), files=pl.col(name).list.len(), names=pl.col(name).list.head(5).list.join(", ")
        )

    weights = result.models.filter(pl.col("weights") != "")
    both = [
        grouped(result.paths, "file", "the same file", "path"),
        grouped(weights, "weights", "the same weights", "name"),
    ]
    found: pl.DataFrame = pl.concat(both)
    return found.sort("files", "names", descending=[True, False])
