"""The verb `aspects`, `search --aspect` and the service, as people and programs use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from embedlab._core.errors import InputError
from embedlab.cli import app
from embedlab.search import Collection

from .conftest import COLOURS, KINDS, documents


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """A collection of the default model, ``fleet``, and the folder with its label files."""
    rows = documents(32)
    Collection.create("fleet").add(rows)
    (tmp_path / "labels.csv").write_text(
        "source,colour,kind\n" + "".join(f"d{n},{COLOURS[n % 4]},{KINDS[n // 4 % 4]}\n" for n in range(32))
    )
    (tmp_path / "names.jsonl").write_text(
        "".join(json.dumps({"aspect": "vehicle", "name": kind, "aliases": [f"{kind}s"]}) + "\n" for kind in KINDS)
    )
    (tmp_path / "pairs.csv").write_text("aspect,first,second\n" + "".join(f"twin,d{n},d{n + 16}\n" for n in range(16)))
    return tmp_path


def test_learning_listing_searching_and_forgetting(indexed):
    table = run("aspects", "fleet", "--labels", str(indexed / "labels.csv"))
    assert "P@10 of the space for" in table
    assert "siamese" in table
    listed = json.loads(run("aspects", "fleet", "--json"))
    assert listed.keys() == {"colour", "kind"}
    assert listed["kind"]["documents"] == 32
    assert 0 <= listed["kind"]["generic_precision"] <= 1
    assert "kind" in run("aspects", "fleet")
    words = ("search", "a red boat", "--in", "fleet", "--mode", "dense", "--json", "--explain")
    found = json.loads(run(*words, "--aspect", "kind=1", "--aspect", "colour=0.3"))
    assert found[0]["parts"].keys() >= {"aspect kind", "aspect colour"}
    assert found[0]["score"] == pytest.approx(
        (found[0]["parts"]["aspect kind"] + 0.3 * found[0]["parts"]["aspect colour"]) / 1.3, abs=1e-5
    )
    plain = [hit["id"] for hit in json.loads(run(*words))]
    assert plain == [hit["id"] for hit in json.loads(run(*words, "--aspect", "generic"))]
    assert json.loads(run("aspects", "fleet", "--remove", "kind", "--json")) == {"removed_aspects": 1}
    assert json.loads(run("aspects", "fleet", "--json")).keys() == {"colour"}


def test_other_sources_and_no_comparison(indexed):
    found = json.loads(
        run("aspects", "fleet", "--entities", str(indexed / "names.jsonl"), "--pairs", str(indexed / "pairs.csv"),
            "--column", "colour", "--no-compare", "--json")
    )  # fmt: skip
    assert found == {
        "aspects": ["colour", "vehicle", "twin"],
        "documents": {"colour": 32, "vehicle": 32, "twin": 32},
        "comparison": None,
    }


def test_what_is_wrong_is_said(indexed):
    with pytest.raises(InputError, match="write NAME=WEIGHT"):
        run("search", "boat", "--in", "fleet", "--aspect", "kind=much")
    with pytest.raises(InputError, match="unknown column 'color'"):
        run("aspects", "fleet", "--column", "color")
    assert run("aspects", "fleet") == ""  # the remark that there are none goes to stderr


def test_the_service_tells_and_takes_aspects(indexed):
    from embedlab.serve.app import create_app
    from embedlab.serve.settings import Settings

    run("aspects", "fleet", "--column", "kind", "--column", "colour", "--no-compare")
    with TestClient(create_app(Settings()), base_url="http://localhost") as client:
        [shown] = client.get("/api/collections").json()["collections"]
        assert shown["aspects"] == ["kind", "colour"]
        route = "/api/collections/fleet/search"
        asked = {"query": "a red boat", "mode": "dense", "explain": True}
        link = client.get(route, params={**asked, "aspect": ["kind=1", "colour=0.3"]}).json()
        body = client.post(route, json={**asked, "aspects": {"kind": 1, "colour": 0.3}}).json()
        assert link["hits"] == body["hits"]
        expected = Collection.open("fleet").search("a red boat", mode="dense", aspects={"kind": 1, "colour": 0.3})
        assert [hit["id"] for hit in body["hits"]] == [hit.id for hit in expected]
        assert body["hits"][0]["parts"].keys() >= {"aspect kind", "aspect colour"}
        near = f"/api/collections/fleet/passages/{body['hits'][0]['id']}/similar"
        own = client.get(near, params={"aspect": "kind"}).json()["hits"]
        expected = Collection.open("fleet").similar(body["hits"][0]["id"], aspects={"kind": 1})
        assert [hit["id"] for hit in own] == [hit.id for hit in expected]
        for params, said in (
            ({"query": "x", "aspect": "king=1"}, "did you mean 'kind'"),
            ({"query": "x", "aspect": "kind=a"}, "write NAME=WEIGHT"),
            ({"query": "x", "aspect": "kind=nan"}, "nan"),
        ):
            answer = client.get(route, params=params)
            assert answer.status_code == 400, answer.text
            assert said in answer.json()["error"]["message"]
        assert client.post(route, json={"query": "x", "aspects": {"kind": "1"}}).status_code == 400
