"""Tables from everywhere: frames, folders, databases; cells as text, the same way each time."""

from __future__ import annotations

import math
import os
import sqlite3
from pathlib import Path

import pytest

from embedlab._core.errors import InputError
from embedlab.data import loaders
from embedlab.data.tables import Table, as_table, read_csv, read_tables

needs_data = pytest.mark.skipif("EMBEDLAB_DATA" not in os.environ, reason="EMBEDLAB_DATA is not set")

MIXED = {"id": [1, None, 3], "price": [1.5, float("nan"), 2.0], "name": ["a  b\n", "", None]}
WRITTEN = (("1", "", "3"), ("1.5", "", "2"), ("a b", "", ""))


def test_cells_become_text_once() -> None:
    table = as_table(MIXED, name="t")
    assert table.columns == WRITTEN
    assert as_table(table) is table
    assert (table.num_rows, table.num_columns) == (3, 3)
    assert [table.is_text(j) for j in range(3)] == [False, False, True]


def test_pandas_frames_with_gaps_and_twin_headers() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(MIXED)
    assert as_table(frame).columns == WRITTEN  # the integers with a gap came as floats
    twins = frame.set_axis(["x", "x", 7], axis=1)
    assert as_table(twins).header == ("x", "x", "7")
    assert as_table(twins).columns == WRITTEN
    dates = pandas.DataFrame(
        {"d": pandas.to_datetime(["2020-01-02", None]), "n": pandas.array([1, None], dtype="Int64")}
    )
    assert as_table(dates).columns == (("2020-01-02 00:00:00", ""), ("1", ""))


def test_polars_frames() -> None:
    polars = pytest.importorskip("polars")
    assert as_table(polars.DataFrame(MIXED, strict=False)).columns == WRITTEN


def test_changing_a_table_leaves_it_alone() -> None:
    table = as_table({"a": ["1", "2", "3"], "b": ["x", "y", "z"]})
    assert table.take_rows([2, 0]).columns == (("3", "1"), ("z", "x"))
    assert table.take_columns([1]).header == ("b",)
    assert table.head(1).columns == (("1",), ("x",))
    assert table.with_header(["c", "d"]).columns == table.columns
    assert table.columns == (("1", "2", "3"), ("x", "y", "z"))


@pytest.mark.parametrize("parting", [",", ";", "\t", "|"])
def test_csv_is_read_whatever_parts_it(parting: str) -> None:
    text = f'a{parting}b\n1{parting}"x\ny"\n\n2\n3{parting}4{parting}5\n'
    table = read_csv(text)
    assert table.header == ("a", "b", "")
    assert table.columns == (("1", "2", "3"), ("x y", "", "4"), ("", "", "5"))


def test_a_folder_of_files_and_databases(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.csv").write_bytes("stadt,land\nKöln,DE\n".encode("cp1252"))
    (tmp_path / "two.tsv").write_text("\ufeffa\tb\n1\t2\n", encoding="utf-8")
    (tmp_path / "empty.csv").touch()
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute('CREATE TABLE "odd ""name" (id INTEGER, picture BLOB, note TEXT)')
        database.execute('INSERT INTO "odd ""name" VALUES (1, x\'0102\', NULL)')
        database.execute("CREATE TABLE bare (id INTEGER)")
    database.close()
    tables = {table.name: table for table in read_tables(tmp_path)}
    assert sorted(tables) == ["shop.bare", 'shop.odd "name', "sub/one", "two"]
    assert tables["sub/one"].columns == (("Köln",), ("DE",))
    assert tables["two"].header == ("a", "b")
    assert tables['shop.odd "name'].columns == (("1",), ("2 bytes",), ("",))
    assert (tables["shop.bare"].num_rows, tables["shop.bare"].num_columns) == (0, 1)
    assert [table.name for table in read_tables(tmp_path / "shop.db")] == ["bare", 'odd "name']


def test_several_frames() -> None:
    assert [table.name for table in read_tables([{"a": [1]}, {"b": [2]}])] == ["table0", "table1"]
    assert [table.name for table in read_tables({"x": {"a": [1]}})] == ["x"]
    twice = [Table("t", ("a",), (("1",),))] * 2
    assert [table.name for table in read_tables(twice)] == ["t", "t#2"]
    assert read_tables({"a": [1], "b": [2]})[0].header == ("a", "b")
    assert read_tables(Table("t", (), ()))[0].num_rows == 0


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.sqlite").write_bytes(b"SQLite format 3\0" + bytes(200))
    (tmp_path / "bad.csv").write_bytes(b"a,b\0\x01")
    for source, says in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "bad.sqlite", "no readable SQLite"),
        (tmp_path / "bad.csv", "no text file"),
        ([], "no table"),
        (7, "folder"),
    ):
        with pytest.raises(InputError, match=says):
            read_tables(source)
    with pytest.raises(InputError, match="differ in length"):
        as_table({"a": [1], "b": []})
    with pytest.raises(InputError, match="is no table"):
        as_table(math.pi)
    with pytest.raises(InputError, match="field larger"):
        read_csv("a\n" + "x" * 200_000)
    with pytest.raises(InputError, match="holds no row"):
        read_csv("\n\n")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no table"):
        read_tables(tmp_path / "none")


@needs_data
def test_loaders_of_tables() -> None:
    shapes = {table.name: (table.num_rows, table.num_columns) for table in loaders.load_chinook()}
    assert len(shapes) == 11
    assert shapes["Invoice"] == (412, 9)
    airports = loaders.load_openflights()
    assert (airports.num_rows, airports.header[3], airports.columns[3][0]) == (7698, "Country", "Papua New Guinea")
    assert not any("\\N" in column for column in airports.columns)
    assert loaders.load_sp500().num_rows == 503
    some = loaders.load_wikitablequestions(3)
    assert len(some) == 3
    assert some[0].header[0] == "Year"
    schemas = loaders.load_spider_schemas()
    assert len(schemas) == 166
    first = schemas[0]
    assert [first.tables[t][1][c] for t, c in first.foreign_keys[0]] == ["people id", "people id"]
    with pytest.raises(InputError, match="limit=0"):
        loaders.load_wikitablequestions(0)
