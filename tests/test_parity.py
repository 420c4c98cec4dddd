"""Python and the command line are one surface: the same names, the same options, the same defaults.

Both sides are read from what they are made of: the commands as typer has them, the functions by their
signatures. What only one side has is listed here, with its reason.
"""

import dataclasses
import enum
import inspect

import emergraph
from emergraph.analysis.registry import BUILT_IN
from emergraph.cli.app import program
from emergraph.cli.commands import COMMANDS
from emergraph.cli.limits import Limits
from emergraph.cli.output import Output

NO_FUNCTION = {
    "help": "Python has help()",
    "mcp": "a server on stdin and stdout for other programs",
    "demo": "shows command lines",
    "skills": "a group; its commands are functions of emergraph.skills",
    "ls": "Store.graphs is a table, not an action",
    "info": "Graph.info is a mapping, not an action",
}
HOMES = {
    **dict.fromkeys(
        ("export", "audit", "check", "landscape", "information", "lineage", "survey"), "emergraph"
    ),
    **dict.fromkeys(("concepts", "transition"), "emergraph"),
    **dict.fromkeys(("trajectory", "sql", "rm", "merge", "compact"), "Store"),
}
"""Where functions are that are no methods of a graph."""
OUTPUT = {field.name for field in dataclasses.fields(Output)} | {"debug", "help"}
LIMITS = {field.name for field in dataclasses.fields(Limits)}
RENAMED = {
    ("trace", "inputs"): "samples",
    ("trace", "input"): "inputs",
    ("trace", "input_shape"): "input_shapes",
    ("export", "input"): "inputs",
    ("export", "input_shape"): "input_shapes",
    ("audit", "input"): "values",
    ("audit", "input_shape"): "input_shapes",
    ("landscape", "input"): "inputs",
    ("landscape", "input_shape"): "input_shapes",
    ("check", "file"): "model",
    ("concepts", "file"): "table",
    ("transition", "file"): "table",
    ("diff", "b"): "other",
    ("prune", "keeping_graph"): "graph",
}
"""Words of a command line that are objects in Python, and what the function calls them."""
ONLY_COMMANDS = {
    ("emergence", "dry_run"): "Graph.emergence_plan returns the plan",
    ("export", "dry_run"): "a plan is for people; nothing of it is a graph",
    ("convert", "edges"): "Store.lake(edges=True) writes lakes",
    ("diff", "view"): "the tables of a difference are its attributes",
    ("diff", "input"): "graphs are compared, which are exported first",
    ("diff", "input_shape"): "graphs are compared, which are exported first",
    ("topology", "view"): "the tables of a result are its attributes",
    ("sql", "model"): "emergraph.with_model holds for any statement",
    ("sql", "verify"): "emergraph.with_model holds for any statement",
    ("sql", "root"): "emergraph.with_model holds for any statement",
    ("diff", "model"): "emergraph.with_model holds for both graphs",
    ("diff", "root"): "emergraph.with_model holds for both graphs",
    ("convert", "model"): "emergraph.with_model holds for all edges",
    ("convert", "verify"): "emergraph.with_model holds for all edges",
    ("convert", "root"): "emergraph.with_model holds for all edges",
    ("report", "terminal"): "a notebook shows the report itself",
    ("report", "root"): "from a model file, Python exports, traces and analyses call by call",
    **{
        (command, name): "from a model file, Python exports, traces and analyses call by call"
        for command in ("report", "explore")
        for name in ("input", "input_shape", "inputs", "store", "budget", "any_name", "seed")
    },
}
METHOD = {"a", "store", "graph", "source"}
"""What a method is called on."""


def commands():
    """Every command with its parameters: their names, defaults and whether they are arguments."""
    group = program()
    context = group.make_context("emergraph", [], resilient_parsing=True)
    for name in COMMANDS:
        command = group.get_command(context, name)
        inner = getattr(command, "commands", None)
        for part, one in ({"": command} if inner is None else dict(inner)).items():
            yield f"{name} {part}".strip(), one


def function_of(command):
    """The function or method of a command."""
    if command.startswith("skills "):
        return getattr(emergraph.skills, command.split()[1])
    home = HOMES.get(command, "Graph")
    return getattr(emergraph if home == "emergraph" else getattr(emergraph, home), command)


FOUND = {name: command for name, command in commands() if name not in NO_FUNCTION}


def test_every_command_is_a_function_or_says_why_not():
    assert set(NO_FUNCTION) <= set(COMMANDS)
    for name in FOUND:
        assert callable(function_of(name)), name
        assert inspect.getdoc(function_of(name)), name


def test_every_analysis_is_in_python():
    for name in BUILT_IN:
        assert name in FOUND, name


def test_options_are_keywords_of_the_same_name():
    missing = {}
    for command, found in FOUND.items():
        keywords = inspect.signature(function_of(command)).parameters
        for parameter in found.params:
            name = parameter.name
            shared = name in OUTPUT - {"out"} | LIMITS or (name == "out" and "out" not in keywords)
            on = name in METHOD and "self" in keywords and name not in keywords
            if shared or on or (command, name) in ONLY_COMMANDS:
                continue
            if RENAMED.get((command, name), name) not in keywords:
                missing.setdefault(command, []).append(name)
    assert missing == {}, "no keyword of Python, and no reason"


def test_what_is_said_to_be_on_one_side_is():
    for command, found in FOUND.items():
        names = {parameter.name for parameter in found.params}
        keywords = set(inspect.signature(function_of(command)).parameters)
        for (of, name), other in RENAMED.items():
            assert of != command or (name in names and other in keywords), (command, name)
        for of, name in ONLY_COMMANDS:
            assert of != command or (name in names and name not in keywords), (command, name)


def test_defaults_are_those_of_the_command_line():
    """They come from one declaration; a function of its own with a keyword of the name could differ."""
    differing = []
    for command, found in FOUND.items():
        keywords = inspect.signature(function_of(command)).parameters
        for parameter in found.params:
            name = RENAMED.get((command, parameter.name), parameter.name)
            if name not in keywords or parameter.param_type_name == "argument":
                continue
            ours, theirs = keywords[name].default, parameter.default
            theirs = theirs.value if isinstance(theirs, enum.Enum) else theirs
            plain = isinstance(theirs, bool | int | float) and isinstance(ours, bool | int | float)
            if plain and ours != theirs:
                differing.append((command, name, ours, theirs))
    assert differing == []
