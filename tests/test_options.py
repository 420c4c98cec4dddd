"""Options are declared once: the command line, the docstring and the command that repeats a run follow."""

import dataclasses
import importlib
import typing
from enum import StrEnum
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.activity.options import ActivityOptions, RuleOptions
from emergraph.analysis.comparison.options import MatchOptions
from emergraph.analysis.emergence.options import (
    ExtentOptions,
    ReportOptions,
    SnapshotOptions,
    TrajectoryOptions,
)
from emergraph.analysis.explorer.options import ExplorerOptions
from emergraph.analysis.influence.options import (
    CircuitOptions,
    ContributionOptions,
    InfluenceOptions,
    ModelRunOptions,
)
from emergraph.analysis.information.options import BlockOptions, EstimatorOptions, SequenceOptions
from emergraph.analysis.landscape.options import ModelOptions, ParallelOptions, SurveyOptions, TargetOptions
from emergraph.analysis.lineage.options import LineageOptions
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.percolation.options import (
    CollapseOptions,
    ConceptOptions,
    LogColumns,
    OrderOptions,
    PairColumns,
    PercolationOptions,
)
from emergraph.analysis.pruning.options import ActivityChoice, Keeping, PruningOptions, RunOptions
from emergraph.analysis.routes.options import PathOptions
from emergraph.analysis.skills.options import (
    FitOptions,
    ModelParameters,
    PredictionOptions,
    SimulationOptions,
)
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.cli.app import parse_options
from emergraph.errors import UsageError
from emergraph.exporters.runtime.inputwords import InputOptions, InputWords
from emergraph.exporters.traces.options import SampleOptions, TraceOptions
from emergraph.optionforms import BUDGET, GRID, NAME_OR_ID, TableForm
from emergraph.options import Options, command_line, declared_options, option, repeated

CLASSES = (
    *(TopologyOptions, OrderOptions, PercolationOptions, SurveyOptions),
    *(PruningOptions, ActivityChoice, RunOptions, Keeping),
    *(RuleOptions, ActivityOptions, ReportOptions, ExtentOptions, EmergenceOptions),
    *(SnapshotOptions, TrajectoryOptions, LineageOptions),
    *(PathOptions, ModelRunOptions, InfluenceOptions, CircuitOptions, ContributionOptions),
    *(ModelOptions, ParallelOptions, TargetOptions, InputOptions, InputWords),
    *(FitOptions, ModelParameters, PredictionOptions, SimulationOptions),
    *(PairColumns, ConceptOptions, LogColumns, CollapseOptions, TableForm),
    *(SequenceOptions, BlockOptions, EstimatorOptions, SampleOptions, TraceOptions, MatchOptions),
    ExplorerOptions,
)


WORDS = {
    "loss": ["auto", "kl", "mse", "cross_entropy"],
    "criterion": ["magnitude", "wanda", "l2", "random", "2:4"],
    "levels": [(0.1,), (0.25, 0.5)],
}
"""Values of options whose words no type lists."""
FORMS = {
    NAME_OR_ID: st.integers(0, 99) | st.from_regex(r"\A[a-z][a-z0-9 =]{0,9}\Z"),
    GRID: st.just("all") | st.integers(2, 999) | st.lists(st.floats(-1, 1), min_size=1).map(tuple),
    BUDGET: st.none() | st.integers(1, 10**6).map(float),
}
"""Values that are written in a form of their own."""


class Colour(StrEnum):
    """For the tests."""

    RED = "red"
    BLUE = "blue"


class Walk(Options):
    """How a walk is drawn."""

    steps: int = option(default=10, help="Steps.", least=2, most=50)
    size: float = option(default=0.5, help="Size of a step.", above=0)
    colours: tuple[Colour, ...] = option(default=(Colour.RED,), help="Colours.", flag="--colour")
    shares: tuple[float, ...] | None = option(default=None, help="Shares.", default_text="all")
    folder: Path | None = option(default=None, help="Where.", metavar="FOLDER")
    loud: bool = option(default=False, help="Say it.")
    drawn: bool = option(default=True, help="Draw it.")
    wide: bool | None = option(default=None, help="How wide.", off="--narrow")
    names: tuple[str, ...] = option(default=(), help="Names.", flag="--name", repeatable=True)
    files: tuple[Path, ...] | None = option(default=None, help="Files.", flag="--file", repeatable=True)
    budget: float | None = option(default=60.0, help="Time.", form=BUDGET)
    note: str = "not an option"


def values(declared):
    """Draw a value that an option may have, often its default."""
    return st.just(declared.default) | st.just(declared.default) | other_values(declared)


def other_values(declared):
    """Draw a value that the declaration allows."""
    if declared.name in WORDS:
        return st.sampled_from(WORDS[declared.name])
    if declared.form is not None:
        return FORMS[declared.form]
    kind = declared.item
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(int(declared.least or 0), int(declared.most or 10**6))
    if kind is float:
        low = declared.least if declared.least is not None else declared.above
        number = st.floats(low, declared.most, allow_nan=False, allow_infinity=False)
        number = number.filter(lambda x: declared.above is None or x > declared.above)
    elif isinstance(kind, type) and issubclass(kind, StrEnum):
        number = st.sampled_from(list(kind))
    elif kind is Path:
        number = st.from_regex(r"\A[a-z]{1,5}/-?[a-z.]{1,5}\Z").map(Path)
    else:
        number = st.from_regex(r"\A-{0,2}[a-zA-Z0-9 '\"<>*_]{1,12}\Z")
        number = number.map(str.strip).filter(bool) if declared.many else number
    return st.lists(number, min_size=1, max_size=4).map(tuple) if declared.many else number


def objects(cls):
    """Draw options of a class; those that do not go together are passed over."""
    drawn = {one.name: values(one) for one in declared_options(cls)}

    def made(chosen):
        try:
            return cls(**chosen)
        except UsageError:
            return None

    return st.fixed_dictionaries(drawn).map(made).filter(lambda found: found is not None)


@pytest.mark.parametrize("cls", [*CLASSES, Walk], ids=lambda cls: cls.__name__)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_command_line_of_options_gives_equal_options(cls, data):
    chosen = data.draw(objects(cls))
    assert parse_options(cls, command_line(chosen)) == chosen
    again = parse_options(cls, repeated(cls, chosen.to_dict()))
    assert again.to_dict() == chosen.to_dict()


@pytest.mark.parametrize("cls", [*CLASSES, Walk], ids=lambda cls: cls.__name__)
def test_defaults_need_no_words(cls):
    assert command_line(cls()) == []
    assert parse_options(cls, []) == cls()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_docstring_lists_every_option(cls):
    for one in declared_options(cls):
        assert f"{one.name}: {one.help}" in cls.__doc__


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Walk().steps = 3


@pytest.mark.parametrize(
    ("given_value", "message"),
    [
        ({"steps": 1}, "steps: expected at least 2 and at most 50, found 1"),
        ({"steps": 51}, "steps: expected at least 2 and at most 50, found 51"),
        ({"size": 0}, "size: expected above 0, found 0"),
        ({"size": float("nan")}, "size: expected above 0, found nan"),
        ({"colours": ("green",)}, "unknown colours 'green'; available: red, blue"),
    ],
)
def test_values_out_of_range_are_refused(given_value, message):
    with pytest.raises(UsageError, match=message):
        Walk(**given_value)


def test_words_become_what_they_mean():
    walk = Walk(colours=["red", "blue"], shares=[0.5, 1])
    assert walk.colours == (Colour.RED, Colour.BLUE)
    assert walk.shares == (0.5, 1)
    assert command_line(walk) == ["--colour", "red,blue", "--shares", "0.5,1"]


@pytest.mark.parametrize("words", [["--shares", "1,x"], ["--shares", "nan"], ["--size", "inf"]])
def test_words_that_are_no_numbers_are_refused(words):
    with pytest.raises(UsageError):
        parse_options(Walk, words)


def test_what_is_no_option_is_left_to_the_program():
    assert "note" not in {one.name for one in declared_options(Walk)}
    assert Walk(note="x").to_dict()["note"] == "x"


COMMANDS = (
    *("prune", "landscape"),
    *(
        "skills.fit",
        "skills.predict",
        "skills.simulate",
        "information",
        "trace",
        "diff",
        "plot",
        "report",
        "explore",
        "lineage",
    ),
)
OF_THE_COMMAND_LINE = {
    *("graph", "save", "store", "any_name", "view", "name", "separator", "root", "out", "format", "quiet"),
    *("debug", "full", "time_limit", "memory_limit", "verify"),
}
"""What a command may declare itself: where results go and how they look, which tables are read, limits."""
OWN = {
    "report": {"inputs", "budget", "seed", "terminal", "chosen"},
    "explore": {"inputs", "budget", "seed", "model"},
    "trace": {"model"},
    "diff": {"model"},
}
"""What only one command has: what it hands to other commands, or the file behind a graph."""


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_restates_an_option_of_the_library(command):
    module, _, name = command.partition(".")
    function = getattr(importlib.import_module(f"emergraph.cli.commands.{module}"), name or module)
    own = set()
    for parameter, hint in typing.get_type_hints(function, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, Options):
            assert hint in CLASSES, "add the class to CLASSES"
        elif dataclasses.is_dataclass(hint):
            own |= {field.name for field in dataclasses.fields(hint)}
        elif any(isinstance(note, typer.models.OptionInfo) for note in typing.get_args(hint)):
            own.add(parameter)
    assert own <= OF_THE_COMMAND_LINE | OWN.get(command, set())
