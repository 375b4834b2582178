"""Records are read without importing, and a wrong one is named by file and field."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from embedlab._core.errors import InputError
from embedlab._core.registry import RecordError, collect, method, methods, read_record

RECORD = {
    "card": 41,
    "title": "A title",
    "authors": "A. Author",
    "year": 2024,
    "source": "arXiv:2402.16829v1",
    "kinds": {"loss": "MyLoss"},
    "extras": ["train"],
    "official_code": "owner/name (MIT)",
    "deviations": [],
    "known_failures": ["Fails on Mondays."],
}


def write(path: Path, record: object, *, before: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}\nMETHOD = {record!r}\n", encoding="utf-8")
    return path


def test_a_record_is_read_and_nothing_is_imported(tmp_path: Path) -> None:
    path = write(tmp_path / "text" / "my_method.py", RECORD, before="import a_module_that_does_not_exist\n1 / 0")
    record = read_record(path)
    assert record is not None
    assert (record.name, record.room, record.card) == ("my_method", "text", 41)
    assert record.kinds == {"loss": "MyLoss"}
    assert record.extras == ("train",)
    assert record.module == "embedlab.text.my_method"
    assert record.sources() == (path,)


def test_a_folder_is_a_method_of_several_files(tmp_path: Path) -> None:
    path = write(tmp_path / "text" / "my_method" / "__init__.py", RECORD)
    (path.parent / "part.py").write_text("x = 1\n")
    record = collect(tmp_path)["my_method"]
    assert record.room == "text"
    assert record.sources() == (path, path.parent / "part.py")


def test_a_module_without_a_record_is_no_method(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "collection.py").write_text("class Collection: ...\n")
    assert collect(tmp_path) == {}


WRONG = [
    ({"card": "41"}, "card"),
    ({"card": True}, "card"),
    ({"title": " "}, "title"),
    ({"year": 24}, "year"),
    ({"kinds": {}}, "kinds"),
    ({"kinds": {"looss": "MyLoss"}}, "kinds"),
    ({"extras": ["torch"]}, "extras"),
    ({"official_code": "MIT"}, "official_code"),
    ({"deviations": "none"}, "deviations"),
    ({"colour": "red"}, "colour"),
]


@pytest.mark.parametrize(("change", "field"), WRONG)
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, change: dict[str, object], field: str) -> None:
    path = write(tmp_path / "text" / "my_method.py", RECORD | change)
    with pytest.raises(RecordError, match=field) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("field", RECORD)
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "text" / "my_method.py", {key: value for key, value in RECORD.items() if key != field})
    with pytest.raises(RecordError, match=f"lacks the field '{field}'"):
        read_record(path)


@pytest.mark.parametrize("text", ["METHOD = dict(card=1)", "METHOD = {'card': CARD}", "METHOD = [1]", "METHOD = ("])
def test_what_is_no_literal_dict_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "my_method.py"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"my_method\.py:1"):
        read_record(path)


def test_two_methods_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "text" / "same.py", RECORD)
    write(tmp_path / "words" / "same.py", RECORD)
    with pytest.raises(RecordError, match="taken by"):
        collect(tmp_path)


def test_methods_are_found_by_either_spelling_and_typos_get_a_hint() -> None:
    assert {"gist", "tte_depth", "temp_scale"} <= methods().keys()
    assert method("tte-depth") is method("tte_depth")
    with pytest.raises(InputError, match="did you mean 'gist'"):
        method("gits")


def test_listing_loads_no_torch() -> None:
    import subprocess

    code = (
        "import sys; from embedlab._core.registry import methods; assert methods(); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
