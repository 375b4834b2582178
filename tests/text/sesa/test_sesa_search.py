"""Named dimensions where people meet them: tables, verbs, collections that explain their hits, the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from embedlab import Collection
from embedlab._core.errors import InputError
from embedlab.cli import app
from embedlab.text.sesa import ESA, SESA, ConceptSpace
from embedlab.text.sesa.tables import learn, read_concepts, read_declaring, read_pairs

TABLE = 'name,description\nbaking,"bread, cakes\nand ovens"\nsailing,boats and wind\nmining,coal and pits\n'
DOCS = {"a.txt": "Bread from the ovens.", "b.txt": "Wind for the boats, bread for the crew.", "c.txt": "Coal."}


def ran(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert (result.exit_code == 0) == (status == 0), result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path / "home"))
    (tmp_path / "docs").mkdir()
    for name, text in DOCS.items():
        (tmp_path / "docs" / name).write_text(text)
    (tmp_path / "concepts.csv").write_text(TABLE)
    return tmp_path


def test_tables_are_read(folder: Path) -> None:
    space = read_concepts(folder / "concepts.csv")
    assert space == ConceptSpace(
        ["baking", "sailing", "mining"], ["bread, cakes\nand ovens", "boats and wind", "coal and pits"]
    )
    (folder / "names.jsonl").write_text('{"Name": "baking"}\n\n{"name": "sailing"}\n')
    assert read_concepts(folder / "names.jsonl") == ConceptSpace(["baking", "sailing"])
    (folder / "t.tsv").write_text("text\tconcepts\na b\tbaking; sailing\nc\t\na b\tmining\n\tbaking\n")
    found = read_declaring(folder / "t.tsv", space)
    assert (found.texts, found.concepts) == (["a b", "c"], [["baking", "sailing", "mining"], []])
    (folder / "t.jsonl").write_text('{"text": "a", "concepts": ["mining"]}\n{"text": "b"}\n')
    assert read_declaring(folder / "t.jsonl", space).concepts == [["mining"], []]
    assert sorted(read_declaring(folder / "docs", space).texts) == sorted(DOCS.values())
    (folder / "p.csv").write_text("first,second,label\na,b,1\na,c,0\n")
    assert read_pairs(folder / "p.csv") == [("a", "b", True), ("a", "c", False)]
    for name, content, says in (
        ("bad.csv", "text,concepts\na,bakin\n", "row 1: unknown concept 'bakin': did you mean 'baking'"),
        ("bad.csv", "words\na\n", "row 1: has no 'text', only words"),
        ("bad.jsonl", "[1]\n", "expected an object"),
        ("bad.jsonl", "{\n", "one JSON object a line"),
        ("bad.csv", "text\n", "holds no text"),
    ):
        (folder / name).write_text(content)
        with pytest.raises(InputError, match=says):
            read_declaring(folder / name, space)
    (folder / "bad.csv").write_text("first,second,label\na,b,2\n")
    with pytest.raises(InputError, match="label='2'"):
        read_pairs(folder / "bad.csv")
    with pytest.raises(InputError, match="expected a table"):
        read_concepts(folder / "docs")


def test_learns_from_declared_sets_and_from_pairs(world: Any) -> None:
    from embedlab.text.sesa.tables import Declaring

    items = Declaring(world.texts[:120], world.held[:120])
    learned = learn(world.space, items, encoder="lstm", epochs=2, learning_rate=0.01)
    assert isinstance(learned.model, SESA)
    assert 0 <= learned.auc <= 1
    assert learned.auc_esa > 0.6
    near = [(a, b, bool(set(p) & set(q))) for a, b, p, q in zip(
        world.texts[:40], world.texts[40:80], world.held[:40], world.held[40:80], strict=True
    )]  # fmt: skip
    by_label = learn(world.space, items, pairs=near, encoder="default", freeze=True, epochs=2)
    assert by_label.pairs == 36
    only_right = [pair for pair in near if pair[2]]
    drawn = learn(world.space, items, pairs=only_right, encoder="default", freeze=True, epochs=2)
    assert drawn.pairs > 2 * len(only_right)
    with pytest.raises(InputError, match="ten or more"):
        learn(world.space, Declaring(world.texts[:5], world.held[:5]))


def test_verbs_make_models_and_explain(folder: Path, world: Any) -> None:
    esa = folder / "esa"
    made = json.loads(ran("concepts", "train", folder / "concepts.csv", esa, "--texts", folder / "docs", "--json"))
    assert (made["concepts"], made["texts"], made["declaring"]) == (3, 3, 0)
    both = json.loads(ran("concepts", "explain", esa, "bread and wind", "boats in the wind, cakes", "--json"))
    assert sum(each["weight"] for each in both["concepts"]) == pytest.approx(both["score"], abs=1e-5)
    assert {each["name"] for each in both["concepts"]} == {"baking", "sailing"}
    one = json.loads(ran("concepts", "explain", esa, "coal", "--json"))
    assert [each["name"] for each in one["concepts"]] == ["mining"]
    said = ran("concepts", "explain", esa, "bread and wind", "boats in the wind, cakes", "-k", 1)
    assert "1 more" in said
    assert "cosine" in said
    ran("concepts", "explain", "default", "a", "b", status=2)  # its dimensions have no names
    ran("concepts", "train", folder / "concepts.csv", esa, "--texts", folder / "docs", status=2)  # it is there already

    (folder / "own.jsonl").write_text("\n".join(json.dumps({"name": name}) for name in world.space.names))
    rows = [json.dumps({"text": t, "concepts": c}) for t, c in zip(world.texts[:60], world.held[:60], strict=True)]
    (folder / "texts.jsonl").write_text("\n".join(rows))
    out = folder / "sesa"
    made = json.loads(
        ran("concepts", "train", folder / "own.jsonl", out, "--texts", folder / "texts.jsonl", "--method", "sesa",
            "--epochs", 2, "--json")
    )  # fmt: skip
    assert {"auc", "auc_esa", "pairs"} <= set(made)
    assert SESA.load(out).space.names == world.space.names
    ran("index", folder / "docs", "--into", "by-sesa", "--model", out)
    assert json.loads(ran("search", "anything", "--in", "by-sesa", "--explain", "--json"))


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
def test_hits_explain_themselves(folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    ESA(read_concepts(folder / "concepts.csv")).fit([]).save(folder / "esa")
    monkeypatch.chdir(folder)
    ran("index", "docs", "--into", "d", "--model", "esa")
    monkeypatch.chdir(folder / "docs")  # the model is found from anywhere
    hits = json.loads(ran("search", "bread on boats", "--in", "d", "--mode", mode, "--explain", "--json"))
    by_source = {hit["source"]: hit for hit in hits}
    for hit in hits:
        assert sum(weight for _, weight in hit["shared"]) == pytest.approx(hit["parts"]["cosine"], abs=1e-5)
    assert [name for name, _ in by_source["b.txt"]["shared"]] == ["sailing", "baking"]
    assert [name for name, _ in by_source["a.txt"]["shared"]] == ["baking"]
    assert "shared: sailing 0." in ran("search", "bread on boats", "--in", "d", "--mode", mode, "--explain")
    assert all(not hit["shared"] for hit in json.loads(ran("search", "bread on boats", "--in", "d", "--json")))
    words = Collection.open("d").search("bread", mode="lexical", explain=True)
    assert words
    assert not any(hit.shared for hit in words)


def test_models_without_names_share_nothing(folder: Path) -> None:
    collection = Collection.create("plain")
    collection.add(list(DOCS.values()))
    assert not any(hit.shared for hit in collection.search("bread", explain=True))


def test_the_service_explains(folder: Path) -> None:
    from fastapi.testclient import TestClient

    from embedlab.serve.app import create_app

    ESA(read_concepts(folder / "concepts.csv")).fit([]).save(folder / "esa")
    Collection.create("d", model=str(folder / "esa")).index(folder / "docs")
    with TestClient(create_app(), base_url="http://localhost") as client:
        asked = {"query": "bread on boats", "explain": True}
        hits = client.post("/api/collections/d/search", json=asked).json()["hits"]
        assert hits[0]["shared"]
        for hit in hits:
            assert sum(weight for _, weight in hit["shared"]) == pytest.approx(hit["parts"]["cosine"], abs=1e-5)
        plain = client.post("/api/collections/d/search", json={"query": "bread on boats"}).json()["hits"]
        assert plain[0]["shared"] is None


def test_in_pieces_on_disk_too(folder: Path) -> None:
    """A collection too large for memory reads the vectors of its hits."""
    from embedlab.search.records import Settings

    ESA(read_concepts(folder / "concepts.csv")).fit([]).save(folder / "esa")
    collection = Collection.create("d", model=str(folder / "esa"), settings=Settings(cache_bytes=0))
    collection.add(list(DOCS.values()))
    for hit in collection.search("bread on boats", explain=True):
        total = np.sum([weight for _, weight in hit.shared])
        assert total == pytest.approx(hit.parts["cosine"], abs=1e-3)
