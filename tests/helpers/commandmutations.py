"""Ways to spoil the files that commands take: their bytes, and their structure with values of odd types."""

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
from onnxmutations import BYTE_MUTATIONS, mutate

ODD_VALUES: tuple[object, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    7,
    1.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    2**31,
    2**63,
    10**40,
    "",
    "x",
    "8",
    "float32",
    "../../etc/passwd",
    "\x1b[2J\u202e",
    "a" * 3000,
    [],
    {},
    [1],
    [[1, 2]],
    ["x", None],
    {"a": 1},
    {"0": {"b": [None]}},
)
"""What a value of a JSON file is replaced by."""

_CONFIG_KEYS = (
    "architectures",
    "model_type",
    "torch_dtype",
    "dtype",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "hidden_act",
    "image_size",
    "patch_size",
    "num_channels",
    "vocab_size",
    "use_cache",
    "attn_implementation",
    "_attn_implementation",
    "output_attentions",
    "return_dict",
    "tie_word_embeddings",
    "pruned_heads",
    "auto_map",
    "quantization_config",
    "backbone",
    "text_config",
    "layer_types",
    "rope_scaling",
)


def spoil_bytes(content: bytes, rng: random.Random) -> bytes:
    """Spoil bytes once to four times."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if content:
            content = rng.choice(BYTE_MUTATIONS)(content, rng)
    return content


def spoil_json(tree: Any, rng: random.Random) -> Any:
    """Put an odd value somewhere into a JSON value, take something out, or nest it."""
    if isinstance(tree, dict) and tree:
        key = rng.choice(sorted(tree, key=str))
        choice = rng.random()
        if choice < 0.1:
            return {name: value for name, value in tree.items() if name != key}
        if choice < 0.15:
            return {**tree, rng.choice(("", "x", "\x00", "a" * 300)): rng.choice(ODD_VALUES)}
        return {**tree, key: spoil_json(tree[key], rng) if choice < 0.5 else rng.choice(ODD_VALUES)}
    if isinstance(tree, list) and tree and rng.random() < 0.6:
        at = rng.randrange(len(tree))
        return [*tree[:at], spoil_json(tree[at], rng), *tree[at + 1 :]]
    return rng.choice(ODD_VALUES)


def spoil_config(path: Path, rng: random.Random) -> None:
    """Spoil the config.json or the weights of a folder."""
    config = path / "config.json"
    if rng.random() < 0.1:
        weights = path / "model.safetensors"
        weights.write_bytes(spoil_safetensors(weights.read_bytes(), rng))
        return
    if rng.random() < 0.1:
        config.write_bytes(spoil_bytes(config.read_bytes(), rng))
        return
    settings = json.loads(config.read_text())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.4:
            settings[rng.choice(_CONFIG_KEYS)] = rng.choice(ODD_VALUES)
        else:
            settings = spoil_json(settings, rng)
        if not isinstance(settings, dict):
            break
    config.write_text(json.dumps(settings))


def spoil_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Spoil the header of a safetensors file, its lengths kept right, or any bytes."""
    if rng.random() < 0.3:
        return spoil_bytes(content, rng)
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
    except ValueError:
        return spoil_bytes(content, rng)
    new = json.dumps(spoil_json(header, rng)).encode()
    return len(new).to_bytes(8, "little") + new + content[8 + length :]


def spoil_gguf(content: bytes, rng: random.Random) -> bytes:
    """Put an odd number somewhere into the header of a GGUF file, or spoil any bytes."""
    if rng.random() < 0.3:
        return spoil_bytes(content, rng)
    at = rng.randrange(4, min(len(content), 900))
    size = rng.choice((1, 4, 8))
    number = rng.choice((0, 1, 2, 5, 8, 9, 31, 2**16, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1))
    return content[:at] + (number % 256**size).to_bytes(size, "little") + content[at + size :]


def spoil_zip(content: bytes, rng: random.Random) -> bytes:
    """Spoil one member of a zip file (of a torch file or an npz), or any bytes."""
    if rng.random() < 0.2:
        return spoil_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        members = [(info.filename, source.read(info)) for info in source.infolist()]
    at = rng.randrange(len(members))
    name, data = members[at]
    choice = rng.random()
    if choice < 0.1:
        del members[at]
    elif choice < 0.2:
        members.append((name, data))
    elif choice < 0.3:
        members[at] = (rng.choice(("", "../x", "a" * 300, name + "\x1b", f"{name}/y")), data)
    else:
        head = data[:200] if rng.random() < 0.6 else data
        members[at] = (name, spoil_bytes(head, rng) + data[len(head) :])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as target:
        for name, data in members:
            target.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


_ARRAY_CHANGES: tuple[Callable[[Any], Any], ...] = (
    lambda a: a.astype(np.int8),
    lambda a: a.astype(np.float16),
    lambda a: a.astype(np.float64) * 1e300,
    lambda a: a.astype(bool),
    lambda a: a.astype(str),
    lambda a: a.astype("S3") if a.dtype.kind in "biufc" else np.full(a.shape, b"abc"),
    lambda a: a.astype(complex),
    lambda a: (
        a.astype("datetime64[s]") if a.dtype.kind in "iu" else a.astype(np.int64).astype("timedelta64[s]")
    ),
    lambda a: a.astype(object),
    lambda a: a.astype(np.dtype([("a", "i4"), ("b", "f4")])),
    lambda a: a.astype(">f4"),
    lambda a: np.full(a.shape, np.nan),
    lambda a: np.full(a.shape, np.inf),
    lambda a: np.full(a.shape, -1),
    lambda a: np.full(a.shape, 2**63, np.uint64),
    np.zeros_like,
    lambda a: a[:0],
    lambda a: a[:1],
    lambda a: a[..., :1],
    lambda a: a.reshape(-1),
    lambda a: a[None],
    lambda a: np.asarray(a).flat[0],
    np.asfortranarray,
    lambda a: np.repeat(a, 3, axis=0),
)


def spoil_arrays(path: Path, rng: random.Random) -> None:
    """Change the type, shape or values of arrays of an .npz, or its bytes."""
    if rng.random() < 0.3:
        path.write_bytes(spoil_zip(path.read_bytes(), rng))
        return
    with np.load(path, allow_pickle=True) as file:
        arrays: dict[str, Any] = dict(file)
    for _ in range(rng.choice((1, 1, 2))):
        if not arrays:
            break
        name = rng.choice(sorted(arrays))
        choice = rng.random()
        if choice < 0.08:
            del arrays[name]
        elif choice < 0.16:
            arrays[rng.choice(("x", name + "2", "é", "a" * 200, "\x1b[2J"))] = arrays.pop(name)
        else:
            try:
                with np.errstate(all="ignore"):
                    arrays[name] = rng.choice(_ARRAY_CHANGES)(arrays[name])
            except (TypeError, ValueError, IndexError):
                arrays[name] = np.array("x")
    np.savez(path, **arrays)


def spoil_npy(path: Path, rng: random.Random) -> None:
    """Change an .npy, or its bytes."""
    if rng.random() < 0.4:
        path.write_bytes(spoil_bytes(path.read_bytes(), rng))
        return
    with np.errstate(all="ignore"):
        np.save(path, rng.choice(_ARRAY_CHANGES)(np.load(path)))


_CELLS = (
    *(
        "",
        "x",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "-1",
        "0",
        "1e400",
        "9" * 40,
        "1,5",
        "1;5",
        '"',
        "'",
        "\x00",
        "\t",
    ),
    *("\ufeff", "null", "None", "true", "2020-01-01", "=1+1", "\x1b[2J", "é" * 100, "a" * 5000, "\n", "\\"),
)


def spoil_text(content: bytes, rng: random.Random) -> bytes:
    """Spoil cells, lines, separators or the encoding of a text table, or its bytes."""
    if rng.random() < 0.3:
        return spoil_bytes(content, rng)
    lines = content.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 3, 20))):
        at = rng.randrange(len(lines))
        cells = lines[at].split(",")
        cells[rng.randrange(len(cells))] = rng.choice(_CELLS)
        lines[at] = rng.choice((",", ",", ",", ",", ";", "\t", " ")).join(cells)
    choice = rng.random()
    if choice < 0.1:
        lines = [line.replace(",", rng.choice((";", "\t", "|", ", "))) for line in lines]
    elif choice < 0.2:
        lines = lines[1:]
    elif choice < 0.25:
        lines = lines[:1]
    elif choice < 0.3:
        lines = lines * 20
    text = rng.choice(("\n", "\n", "\r\n", "\r")).join(lines)
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig", "latin-1", "utf-32"))
    return text.encode(encoding, "replace")


def spoil_parquet(path: Path, rng: random.Random) -> None:
    """Change the type or values of a column, take one out, or spoil the bytes."""
    if rng.random() < 0.4:
        path.write_bytes(spoil_bytes(path.read_bytes(), rng))
        return
    frame = pl.read_parquet(path)
    name = rng.choice(frame.columns)
    column = pl.col(name)
    changes: list[Callable[[], pl.DataFrame]] = [
        lambda: frame.drop(name),
        lambda: frame.rename({name: rng.choice((f"{name}x", "", "é", "a" * 300))}),
        lambda: frame.with_columns(pl.lit(None).alias(name)),
        lambda: frame.with_columns(pl.lit(rng.choice((-1, 0, 2**62, 1e308))).alias(name)),
        lambda: frame.with_columns(pl.lit(float("nan")).alias(name)),
        lambda: frame.with_columns(pl.lit(float("inf")).alias(name)),
        lambda: frame.with_columns(pl.when(pl.int_range(pl.len()) % 2 == 0).then(column).alias(name)),
        lambda: frame.with_columns(pl.lit("x").alias(name)),
        lambda: frame.with_columns(pl.lit(b"x").alias(name)),
        lambda: frame.with_columns(pl.struct(column).alias(name)),
        lambda: frame.with_columns(pl.concat_list(pl.int_range(pl.len())).alias(name)),
        lambda: frame.with_columns(pl.date(2020, 1, 1).alias(name)),
        lambda: frame.with_columns(pl.lit(True).alias(name)),
        lambda: frame.with_columns(pl.lit("x", pl.Categorical).alias(name)),
        lambda: frame.with_columns(pl.lit(1).cast(pl.Decimal(10, 2)).alias(name)),
        lambda: frame.head(0),
        lambda: frame.head(1),
    ]
    rng.choice(changes)().write_parquet(path)


def spoil_lake(path: Path, rng: random.Random) -> None:
    """Spoil a file of a lake, take one out, or put one where none belongs."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    chosen = rng.choice(files)
    choice = rng.random()
    if choice < 0.1:
        chosen.unlink()
    elif choice < 0.2:
        odd = rng.choice(("x.parquet", "graph=1", "graph=\x1b[2J", "..parquet", "part-0.csv"))
        shutil.copy(rng.choice(files), chosen.parent / odd)
    elif choice < 0.25:
        chosen.rename(chosen.with_name(rng.choice(("x", "part-9.parquet", "a" * 200))))
    elif chosen.suffix == ".parquet":
        spoil_parquet(chosen, rng)
    else:
        chosen.write_bytes(spoil_bytes(chosen.read_bytes(), rng))


_SQL_VALUES = {
    "INTEGER": ("-1", "0", "1", "7", "2147483647", "-2147483648"),
    "BIGINT": ("-1", "0", "1", "9223372036854775807"),
    "VARCHAR": ("''", "'x'", "'\x1b[2J'", "'{}'", "'[1'", "'nan'", "repeat('a', 5000)", "chr(0)"),
    "DOUBLE": ("'nan'", "'inf'", "'-inf'", "-1", "0", "1e308"),
    "FLOAT": ("'nan'", "'inf'", "-1", "0", "3e38"),
    "BOOLEAN": ("true", "false"),
    "TIMESTAMP": ("'1970-01-01'", "'infinity'", "'0001-01-01'", "'9999-12-31'"),
    "BLOB": ("''::BLOB", "'x'::BLOB"),
}
_SQL_TYPES = ("VARCHAR", "BLOB", "DOUBLE", "BIGINT", "DATE", "INTEGER[]", "BOOLEAN", "STRUCT(a INTEGER)")


def spoil_store(path: Path, rng: random.Random) -> None:
    """Change columns, types, values and rows of a store behind the tool's back, or its bytes."""
    if rng.random() < 0.15:
        path.write_bytes(spoil_bytes(path.read_bytes(), rng))
        return
    with duckdb.connect(path) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, data_type"
            " FROM duckdb_columns() JOIN duckdb_tables() USING (table_name) ORDER BY ALL"
        ).fetchall()
        for _ in range(rng.choice((1, 1, 2))):
            table, column, kind = rng.choice(columns)
            try:
                connection.execute(_statement(table, column, kind, rng))
            except duckdb.Error:
                continue


def _statement(table: str, column: str, kind: str, rng: random.Random) -> str:
    some = rng.choice(("", "", " WHERE random() < 0.3", " WHERE rowid = 0"))
    choice = rng.random()
    if choice < 0.1:
        return f'ALTER TABLE {table} DROP COLUMN "{column}"'
    if choice < 0.25:
        kind = rng.choice(_SQL_TYPES)
        return f'ALTER TABLE {table} ALTER COLUMN "{column}" TYPE {kind} USING try_cast("{column}" AS {kind})'
    if choice < 0.3:
        return f'ALTER TABLE {table} RENAME COLUMN "{column}" TO x'
    if choice < 0.35:
        return f"DROP TABLE {table} CASCADE"
    if choice < 0.45:
        return f"DELETE FROM {table}{some}"
    if choice < 0.5:
        return f"INSERT INTO {table} FROM {table}{some}"
    if choice < 0.55:
        return f'UPDATE {table} SET "{column}" = NULL{some}'
    base = kind.removesuffix("[]")
    value = rng.choice(_SQL_VALUES.get(base, ("NULL",)))
    if kind.endswith("[]"):
        value = rng.choice(("[]", f"[{value}]", f"[{value}, {value}, NULL]"))
    return f'UPDATE {table} SET "{column}" = {value}{some}'


def spoil(path: Path, kind: str, rng: random.Random) -> None:
    """Spoil a file or folder of a format (see `commandseeds`) in place."""
    if kind == "lake":
        spoil_lake(path, rng)
    elif path.is_dir():
        spoil_config(path, rng)
    elif kind in ("store", "in-place", "snapshots"):
        spoil_store(path, rng)
    elif path.suffix == ".npz":
        spoil_arrays(path, rng)
    elif path.suffix == ".npy":
        spoil_npy(path, rng)
    elif path.suffix == ".parquet":
        spoil_parquet(path, rng)
    else:
        change = {
            ".onnx": mutate,
            ".safetensors": spoil_safetensors,
            ".gguf": spoil_gguf,
            ".csv": spoil_text,
            ".txt": spoil_text,
        }.get(path.suffix, spoil_zip if kind == "torch-zip" else spoil_bytes)
        path.write_bytes(change(path.read_bytes(), rng))


def copied(source: Path, folder: Path) -> Path:
    """Copy a file or folder into a folder; return the copy."""
    target = folder / source.name
    if source.is_dir():
        return Path(shutil.copytree(source, target))
    return Path(shutil.copy(source, target))
