"""Words of a command line that are read without typer's own machinery mean what typer takes them for."""

import enum
from pathlib import Path
from typing import Annotated

import pytest
import typer
import typer.core

from emergraph.cli.app import _Command, plain_value

MISSING = object()


class Color(enum.StrEnum):
    RED = "red"
    DARK_BLUE = "dark-blue"


def read_by(cls, kind, words, default=MISSING, **declared):
    """What a command of a class gets for `--it`, or what it says is wrong."""
    found = []

    def command(*, it: Annotated[kind, typer.Option("--it", **declared)]) -> None:
        found.append(it)

    if default is not MISSING:
        command.__kwdefaults__ = {"it": default}
    alone = typer.Typer(add_completion=False)
    alone.command(cls=cls)(command)
    try:
        typer.main.get_command(alone).main(list(words), standalone_mode=False)
    except typer.TyperException as error:
        return error.format_message()
    return found


WORDS = {
    int: ["0", "7", "-3", "007", " 7", "7 ", "1_000", "1.0", "1.5", "abc", "", "\u0663", "\u00b2", "9" * 30],
    float: ["0", "1.5", "-2", "1e-3", "inf", "x", ""],
    str: ["", "a", " a ", "--", "1"],
    Path: ["", ".", "a/b", "/", "no such file", "-"],
    Color: ["red", "dark-blue", "RED", "blue", "", "DARK_BLUE"],
    bool: [],
}


@pytest.mark.parametrize(("kind", "word"), [(kind, word) for kind in WORDS for word in WORDS[kind]])
def test_a_word_means_what_typer_says(kind, word):
    line = [f"--it={word}"]
    assert read_by(_Command, kind, line) == read_by(typer.core.TyperCommand, kind, line)


@pytest.mark.parametrize("word", ["1", "2", "5", "6"])
def test_a_number_out_of_range_is_refused_as_typer_does(word):
    line, limits = [f"--it={word}"], {"min": 2, "max": 5}
    found = read_by(_Command, int, line, **limits)
    assert found == read_by(typer.core.TyperCommand, int, line, **limits)
    assert (found == [int(word)]) == (2 <= int(word) <= 5)


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        *((int, 3), (float, 0.5), (str, "a"), (Path, Path("a")), (Color, Color.RED), (Color | None, None)),
        *((int | None, None), (list[str] | None, None), (list[Path], [Path("a")]), (bool, False)),
    ],
)
def test_a_default_is_what_typer_makes_of_it(kind, default):
    assert read_by(_Command, kind, [], default) == read_by(typer.core.TyperCommand, kind, [], default)


def test_a_missing_option_is_missing():
    assert read_by(_Command, int, []) == read_by(typer.core.TyperCommand, int, [])


def test_several_values_are_read_by_typer():
    line = ["--it", "1", "--it", "2"]
    assert read_by(_Command, list[int], line) == read_by(typer.core.TyperCommand, list[int], line) == [[1, 2]]


def test_ordinary_words_need_nothing_else():
    number = typer.models.OptionInfo()
    assert plain_value(int, number, "12") == 12
    assert plain_value(Color, number, "dark-blue") is Color.DARK_BLUE
    assert plain_value(Path, number, "a") == Path("a")
    assert plain_value(float, number, "1.5") is None
