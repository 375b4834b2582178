"""Compressed collections in what is built on collections: command line, service, map, evaluation, threads."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from embedlab._core.errors import EmbedlabError
from embedlab.cli import app
from embedlab.evaluate.retrieval_tasks import from_collection
from embedlab.search import Collection, compress_collection, list_collections, undo_compression, upgrade_collection
from embedlab.search.compression.codes import CodeTable
from embedlab.serve.app import create_app
from embedlab.serve.settings import Settings

from ..tiny_model import HashingEncoder
from .corpus import TurnedEncoder, documents

TOPICS = ("the mail server", "a web browser", "the window manager", "an image editor", "a music player")
VERBS = ("reads", "writes", "shows", "keeps", "sorts", "compresses", "checks")


def real_texts() -> list[dict[str, object]]:
    """Texts that the model carried by the package knows the words of."""
    made = []
    for number in range(70):
        topic, verb = TOPICS[number % 5], VERBS[number % 7]
        first = f"This program {verb} messages and files for {topic} number {number}."
        rest = f"It {verb} what {topic} needs, and can be configured by hand. Run it every night to keep {topic} fast."
        made.append({"source": f"d{number}", "text": f"{first} {rest}", "title": f"Package {number} for {topic}"})
    return made


@pytest.fixture
def packages() -> Collection:
    made = Collection.create("packages")
    made.add(real_texts())
    return made


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, EmbedlabError):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.stdout.split())  # tables are wrapped to the terminal


def test_the_commands_say_what_they_did(packages: Collection) -> None:
    before = json.loads(run("search", "web browser files", "--in", "packages", "--json"))
    said = json.loads(run("compress", "packages", "--codec", "int8", "--verify", "70", "--json"))
    assert (said["passages"], said["verify"], said["vectors_kept"]) == (70, 70, True)
    assert said["before"]["recall"] == said["after"]["recall"] == 1.0
    assert said["after"]["bytes_in_memory"] < said["before"]["bytes_in_memory"]
    after = json.loads(run("search", "web browser files", "--in", "packages", "--json"))
    assert [hit["id"] for hit in after] == [hit["id"] for hit in before]
    assert "70 candidates verified" in run("info", "packages")
    assert json.loads(run("info", "packages", "--json"))["codec"].startswith("int8:")
    assert "recall@10 of exact search" in run("compress", "packages", "--codec", "rotation", "--bits", "2")
    assert json.loads(run("compress", "packages", "--undo", "--json"))["embedded"] == 0
    assert "vectors of float16" in run("info", "packages")
    with pytest.raises(EmbedlabError, match="did you mean 'rotation'"):
        run("compress", "packages", "--codec", "rotatoin")
    assert [info.codec for info in list_collections()] == [""]


def test_an_upgrade_that_loses_too_much_ends_with_status_1(
    collection: Collection, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"hashing": encoder, "other": HashingEncoder(48, name="other", salt="other")}
    monkeypatch.setattr("embedlab.models.load_model", lambda name="default": models[name])
    monkeypatch.setattr("embedlab.search.compression.upgrading.find_spec", lambda _: None)
    said = json.loads(run("upgrade", "c", "--model", "other", "--sample", "100", "--json", code=1))
    assert not said["kept"]
    assert said["loss"] > 0.02
    assert "recall@10" in run("upgrade", "c", "--model", "other", "--sample", "100", "--force")
    assert "bridge:" in run("info", "c")


@pytest.mark.parametrize("drop", [False, True], ids=["vectors kept", "vectors dropped"])
def test_service_and_map_go_on(packages: Collection, drop: bool) -> None:
    with TestClient(create_app(Settings()), base_url="http://localhost") as client:

        def get(path: str, **params: object) -> dict[str, object]:
            answer = client.get(f"/api/collections/packages{path}", params=params)  # type: ignore[arg-type]
            assert answer.status_code == 200, answer.text
            return answer.json()  # type: ignore[no-any-return]

        def found() -> list[list[str]]:
            asked = ("web browser", "music files", "sorts messages")
            return [[hit["source"] for hit in get("/search", query=query)["hits"]] for query in asked]  # type: ignore[index, attr-defined]

        before, places = found(), get("/map")["points"]
        compress_collection("packages", codec="float16", drop_vectors=drop)
        assert found() == before
        points = get("/map")["points"]
        assert points["id"] == places["id"]  # type: ignore[index]
        np.testing.assert_allclose(points["x"], places["x"], atol=2e-3)  # type: ignore[index]
        name = points["id"][0]  # type: ignore[index]
        assert get(f"/passages/{name}/similar")["hits"]
        assert get("")["passages"] == 70


def test_a_task_can_be_made_of_it(packages: Collection) -> None:
    compress_collection("packages", codec="int8", drop_vectors=True)
    assert from_collection(packages) is not None


def test_threads_search_while_others_write_and_compress(collection: Collection, encoder: HashingEncoder) -> None:
    """Every answer is whole: as many hits as asked for, the passage itself first, whatever version it came from."""
    known = [(p.id, p.text) for p in collection.passages()][::60]
    done, errors = threading.Event(), []

    def search() -> None:
        try:
            while not done.is_set():
                for name, text in known:
                    hits = collection.search(text, mode="dense", top_k=20)
                    assert (len(hits), hits[0].id) == (20, name)
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        other = Collection.open("c", model=HashingEncoder())
        for number, codec in enumerate(("int8", "float16")):
            compress_collection("c", codec=codec, model=encoder)
            other.add(documents(10, seed=20 + number, name=f"late{number}-"))
            other.delete([f"late{number}-{n}" for n in range(5)])
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_table_of_codes_follows_the_collection(encoder: HashingEncoder) -> None:
    """Rows that come and go give what a table made anew gives, and whoever holds the old one sees no change."""
    from embedlab.search.codecs import make_codec

    numbers = np.random.default_rng(0)
    vectors = numbers.standard_normal((500, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = vectors[430] = 0.0
    codec = make_codec("int8", 32).fit(vectors[:400])
    codes, there = np.zeros((500, codec.bytes_per_vector), np.uint8), vectors.any(axis=1)
    codes[there] = codec.encode(vectors[there])
    ids = np.sort(numbers.choice(10_000, 500, replace=False)).astype(np.uint64)

    def table(places: np.ndarray) -> CodeTable:
        return CodeTable.of(codec, ids[places], codes[places], there[places])

    def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = np.searchsorted(ids, rows)
        return codes[places], there[places]

    first = table(np.arange(400))
    before = first.nearest(vectors[3], None, 50)
    now, held = first, np.arange(400)
    for gone, size in ((np.arange(5, 40, 3), 420), (np.array([410, 411]), 440), (np.arange(100, 120), 450)):
        held = np.setdiff1d(np.union1d(held, np.arange(held.max() + 1, size)), gone)
        after = now.follow(numbers.permutation(ids[held]), read)
        assert after is not None
        fresh = table(held)
        for query in vectors[[3, 405, 439]]:
            for among in (None, ids[held][::3]):
                np.testing.assert_array_equal(after.nearest(query, among, 30)[0], fresh.nearest(query, among, 30)[0])
        now = after
    np.testing.assert_array_equal(first.nearest(vectors[3], None, 50)[0], before[0])
    assert now.follow(ids, read) is None  # too many new ones: worth making anew
    assert now.follow(ids[held][:50], read) is None  # hardly anything left
    some = ids[[3, 7, 9]]
    np.testing.assert_allclose(
        first.scores(vectors[3], some)[[0, 2]], codec.score(vectors[3:4], codes[[3, 9]])[0], atol=1e-5
    )
    assert first.scores(vectors[3], some)[1] == 0.0  # no code: near to nothing


def test_the_path_of_a_collection_may_be_given(tmp_path: Path, encoder: HashingEncoder) -> None:
    made = Collection.create(tmp_path / "here", model=encoder)
    made.add(documents(60))
    assert compress_collection(tmp_path / "here", codec="int8", model=encoder).collection == "here"


def test_a_collection_on_object_storage_is_compressed_and_upgraded(
    tmp_path: Path, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"file://{tmp_path}/bucket/c"
    (tmp_path / "bucket").mkdir()
    made = Collection.create(address, model=encoder)
    made.add(documents(80))
    before = [hit.id for hit in made.search(str(documents(1)[0]["text"]), mode="dense")]
    compress_collection(address, codec="int8", verify=160, model=encoder)
    again = Collection.open(address, model=HashingEncoder())
    assert [hit.id for hit in again.search(str(documents(1)[0]["text"]), mode="dense")] == before
    again.add(documents(2, seed=6, name="late"))
    monkeypatch.setattr("embedlab.search.compression.upgrading.find_spec", lambda _: None)
    report = upgrade_collection(address, model=TurnedEncoder(), old_model=encoder, sample=60)
    assert report.kept
    upgraded = Collection.open(address, model=TurnedEncoder())
    assert upgraded.search(str(documents(2, seed=6)[1]["text"]), mode="dense")[0].source == "late1"
    undo_compression(address, model=TurnedEncoder())
    assert upgraded.search(str(documents(2, seed=6)[1]["text"]), mode="dense")[0].source == "late1"
