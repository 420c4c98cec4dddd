"""Tables as people have them: encodings, separators, numbers, and files that are larger than they look."""

import io

import polars as pl
import pytest

from emergraph.analysis import tablefile
from emergraph.analysis.percolation.concepts import PairColumns, read_pairs
from emergraph.analysis.percolation.training import LogColumns, training_transitions
from emergraph.analysis.skills.fit import SkillCurves
from emergraph.analysis.tablefile import LARGEST, guess_separator, numbers, read_table
from emergraph.errors import InvalidInputError, LimitError, UsageError

ROWS = [("a", 1.5), ("b", 2.0)]


def written(folder, content, name="table.csv"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"name,x\na,1.5\nb,2\n",
        b"name,x\r\na,1.5\r\nb,2\r\n",
        b"name,x\ra,1.5\rb,2\r",
        b"\xef\xbb\xbfname,x\na,1.5\nb,2\n",
        "name,x\na,1.5\nb,2\n".encode("utf-16"),
        "name,x\na,1.5\nb,2\n".encode("utf-16-le"),
        "name,x\na,1.5\nb,2\n".encode("utf-16-be"),
        "\ufeffname\tx\na\t1.5\nb\t2\n".encode("utf-16-be"),
        "name,x\na,1.5\nb,2\n".encode("utf-32"),
        b"name;x\na;1.5\nb;2\n",
        b"name\tx\na\t1.5\nb\t2\n",
        b"name|x\na|1.5\nb|2\n",
        b"name,x,\na,1.5,\nb,2,\n",
        b"name,x\na,1.5,\nb,2,\n",
        b'"name","x"\n"a","1.5"\n"b","2"\n',
        b" name , x\na,1.5\nb,2\n",
        b"name,x\na,1.5\nb,2",
    ],
)
def test_tables_as_people_have_them(tmp_path, content):
    frame = read_table(written(tmp_path, content)).frame
    assert frame.columns == ["name", "x"]
    assert list(zip(frame["name"], numbers(frame, "x"), strict=True)) == ROWS


def test_separators_inside_quotes_do_not_count(tmp_path):
    frame = read_table(written(tmp_path, b'name,x\n"a;b;c",1\n"d;e;f",2\n"line\nbreak",3\n')).frame
    assert frame["name"].to_list() == ["a;b;c", "d;e;f", "line\nbreak"]


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        (b"a,b\n1,2\n", ","),
        (b"a;b\n1,5;2\n", ";"),
        (b"a;b\n1,5;2,5\n3,5;4,5\n", ";"),
        (b"a\tb\nx,y\tz\n", "\t"),
        (b"only\n1,5\n", ","),
        (b"a,b;c\n1,2\n", ","),
        (b"", ","),
        (b'"a;b",c\n1,2\n', ","),
    ],
)
def test_guessing(content, separator):
    assert guess_separator(content) == separator


def test_a_guess_is_said_and_an_option_is_not(tmp_path):
    path = written(tmp_path, b"a;b\n1;2\n")
    assert "separated by semicolon" in read_table(path).notes[0]
    assert read_table(path, separator="semicolon").notes == ()
    assert read_table(path, separator=";").frame.columns == ["a", "b"]
    assert read_table(path, separator="comma").frame.columns == ["a;b"]
    assert read_table(written(tmp_path, b"a,b\n1,2\n")).notes == ()
    for wrong in ("", "ab", '"', "\n", "é"):
        with pytest.raises(UsageError, match="--separator"):
            read_table(path, separator=wrong)


@pytest.mark.parametrize("text", ["nan", "NaN", "NAN", "Nan", "-nan", "#N/A"])
def test_not_a_number_in_any_letters(tmp_path, text):
    frame = read_table(written(tmp_path, f"x,y\n1,a\n{text},b\n ,c\nNA,d\n2e3,e\n".encode())).frame
    found = numbers(frame, "x")
    assert found[1] != found[1]
    assert found.to_list()[2:] == [None, None, 2000.0]


def test_infinity_and_whole_numbers():
    frame = pl.DataFrame({"a": ["1", "-inf", "Infinity"], "b": [1, 2, 3], "c": [None, None, None]})
    assert numbers(frame, "a").to_list() == [1.0, float("-inf"), float("inf")]
    assert numbers(frame, "b").to_list() == [1.0, 2.0, 3.0]
    assert numbers(frame, "c").null_count() == 3
    with pytest.raises(InvalidInputError, match="Boolean"):
        numbers(pl.DataFrame({"a": [True]}), "a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,5", "row 2, column 'x': '0,5' has a decimal comma; write 0.5"),
        ("-1,25e3", "has a decimal comma; write -1.25e3"),
        ("1,000,000", "row 2, column 'x': '1,000,000' is not a number"),
        ("five", "row 2, column 'x': 'five' is not a number"),
    ],
)
def test_what_is_no_number_is_named_with_its_place(tmp_path, text, said):
    frame = read_table(written(tmp_path, f"name;x\na;1.5\nb;{text}\n".encode())).frame
    with pytest.raises(InvalidInputError) as caught:
        numbers(frame, "x")
    assert said in str(caught.value)


@pytest.mark.parametrize("values", [[1.0, -1.001e100], ["1", "-1.001e100"]])
def test_numbers_whose_squares_have_no_place_are_refused(values):
    with pytest.raises(
        InvalidInputError, match=r"row 2, column 'x': -1\.001e\+100, expected numbers between"
    ):
        numbers(pl.DataFrame({"x": values}), "x")
    assert numbers(pl.DataFrame({"x": [LARGEST, -LARGEST]}), "x").to_list() == [LARGEST, -LARGEST]


def test_every_command_s_table_takes_them(tmp_path):
    pairs = written(tmp_path, b"entity;property;time\na;x;2\nb;x;1\nc;y;NAN\n")
    found = read_pairs(pairs, PairColumns(time="time"))
    assert (found.n_pairs, found.n_left_out, found.time.tolist()) == (2, 1, [1.0, 2.0])
    with pytest.raises(InvalidInputError, match=r"row 1, column 'time': '0,5' has a decimal comma"):
        read_pairs(written(tmp_path, b"entity;property;time\na;x;0,5\n"), PairColumns(time="time"))
    log = written(tmp_path, b"step;metric;n_entities;n_properties\n1;0,5;2;3\n")
    with pytest.raises(InvalidInputError, match=r"row 1, column 'metric': '0,5' has a decimal comma"):
        training_transitions(log, columns=LogColumns())
    curves = read_table(written(tmp_path, b"skill\tx\tstrength\n1\t1\tnan\n1\t2\t0.5\n")).frame
    assert SkillCurves.from_frame(curves).strength[0, 0, 1] == 0.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither Parquet nor CSV"),
        (b"a,b\n1,2\n1,2,3\n", "row 2 has more fields than there are names of columns, separated by comma"),
        (b"PAR1 and more", "neither Parquet nor CSV"),
        (b"\x00\x01\x02\x03" * 8, "zero bytes"),
        (b"\xff\xfea", "begins as UTF-16, but is not"),
    ],
)
def test_what_cannot_be_read(tmp_path, content, said):
    with pytest.raises(InvalidInputError) as caught:
        read_table(written(tmp_path, content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_is_told_by_its_content(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    pl.DataFrame({"a": [1]}).write_parquet(buffer)
    assert read_table(written(tmp_path, buffer.getvalue(), "table.csv")).frame.rows() == [(1,)]
    assert read_table(written(tmp_path, b"a\n1\n", "table.parquet")).frame.rows() == [(1,)]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(buffer.getvalue())))
    assert read_table("-").frame.rows() == [(1,)]


def test_a_small_parquet_of_many_rows_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "bomb.parquet"
    many = pl.DataFrame({"a": [7], "b": ["text"]}).select(pl.all().repeat_by(30_000_000).explode())
    many.write_parquet(path, row_group_size=30_000_000)
    assert path.stat().st_size < 1 << 20
    for limit, allowed in ((tablefile.MAX_ROWS, True), (29_999_999, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tablefile, "MAX_ROWS", limit)
            patch.setattr(tablefile.pl, "read_parquet", lambda _: pl.DataFrame({"read": [1]}))
            if allowed:
                assert read_table(path).frame.columns == ["read"]
            else:
                with pytest.raises(LimitError, match="30000000 rows"):
                    read_table(path)


@pytest.mark.parametrize(("limit", "allowed"), [(16_000 + 8_000, True), (16_000 + 7_999, False)])
def test_what_a_parquet_says_that_it_takes(tmp_path, monkeypatch, limit, allowed):
    path = tmp_path / "table.parquet"
    pl.DataFrame({"a": [7] * 1000, "b": ["x"] * 1000}, schema={"a": pl.Int64, "b": pl.String}).write_parquet(
        path
    )
    monkeypatch.setattr(tablefile, "MAX_TABLE_BYTES", limit)
    if allowed:
        assert read_table(path).frame.height == 1000
    else:
        with pytest.raises(LimitError, match="in memory"):
            read_table(path)


@pytest.mark.parametrize(("limit", "allowed"), [(8, True), (7, False)])
def test_the_size_of_text_is_limited(tmp_path, monkeypatch, limit, allowed):
    path = written(tmp_path, b"a,b\n1,2\n")
    monkeypatch.setattr(tablefile, "MAX_TEXT_BYTES", limit)
    if allowed:
        assert read_table(path).frame.height == 1
    else:
        with pytest.raises(LimitError, match="more than"):
            read_table(path)


def test_recorded_skills_of_many_values(monkeypatch):
    frame = pl.DataFrame({"skill": [1, 2], "x": [1, 2], "strength": [0.1, 0.2]})
    monkeypatch.setattr("emergraph.analysis.skills.fit.MAX_CELLS", 4)
    assert SkillCurves.from_frame(frame).strength.shape == (1, 2, 2)
    monkeypatch.setattr("emergraph.analysis.skills.fit.MAX_CELLS", 3)
    with pytest.raises(LimitError, match="recorded skills"):
        SkillCurves.from_frame(frame)


def test_a_parquet_that_makes_the_reader_panic_is_a_line(tmp_path, monkeypatch):
    path = tmp_path / "runs.parquet"
    pl.DataFrame({"step": [1, 2]}).write_parquet(path)

    def panics(*_arguments, **_options):
        raise pl.exceptions.PanicException("offset out of range")

    monkeypatch.setattr("emergraph.analysis.tablefile._from_file", panics)
    with pytest.raises(InvalidInputError, match=r"neither Parquet nor CSV .*offset out of range"):
        read_table(path)
