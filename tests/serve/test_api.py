"""Collections, documents, search, facets and map through the API."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from embedlab import Collection
from embedlab.serve.app import create_app
from embedlab.serve.settings import Limits, Settings

from .conftest import finished, new_client, upload


def get(client: TestClient, path: str, **params: Any) -> Any:
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: TestClient, status: int, field: str | None, path: str, **params: Any) -> str:
    answer = client.get(path, params=params)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["field"] == field
    return str(error["message"])


class TestCollections:
    def test_one_is_made_listed_shown_and_deleted(self, client: TestClient) -> None:
        made = client.post("/api/collections", json={"name": "notes"})
        assert made.status_code == 201
        shown = get(client, "/api/collections/notes")
        assert shown == made.json()
        assert (shown["documents"], shown["passages"], shown["model"]) == (0, 0, "default")
        assert get(client, "/api/collections")["collections"] == [shown]
        assert client.delete("/api/collections/notes").json() == {"deleted": "notes"}
        assert client.get("/api/collections/notes").status_code == 404

    def test_a_name_is_taken_once(self, client: TestClient) -> None:
        client.post("/api/collections", json={"name": "notes"})
        answer = client.post("/api/collections", json={"name": "notes"})
        assert answer.status_code == 409
        assert answer.json()["error"]["field"] == "name"

    @pytest.mark.parametrize(
        "body",
        [
            {"name": ""},
            {"name": ".."},
            {"name": "a/b"},
            {"name": "-x"},
            {"name": "a" * 65},
            {"name": 5},
            {"name": "é"},
            {},
        ],
    )
    def test_bad_names_are_refused(self, client: TestClient, body: dict[str, Any]) -> None:
        answer = client.post("/api/collections", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["field"] == "name"

    def test_callers_choose_no_model_of_their_own(self, client: TestClient) -> None:
        answer = client.post("/api/collections", json={"name": "x", "model": "http://10.0.0.1/v1#m"})
        assert answer.status_code == 404
        assert answer.json()["error"]["field"] == "model"

    def test_an_unknown_field_is_named(self, client: TestClient) -> None:
        answer = client.post("/api/collections", json={"name": "x", "modle": "default"})
        assert answer.json()["error"]["field"] == "modle"

    @pytest.mark.parametrize("name", ["nothing", "..", "%2e%2e", "..%2fsecret", "a%00b", "%2Fetc"])
    def test_no_name_leads_elsewhere(self, client: TestClient, name: str) -> None:
        assert client.get(f"/api/collections/{name}/search?query=x").status_code == 404

    def test_chosen_collections_only(self, tmp_path: Path) -> None:
        Collection.create(tmp_path / "mine").add(["one text"])
        Collection.create("other")
        with new_client(collections=(str(tmp_path / "mine"),)) as client:
            assert [each["name"] for each in get(client, "/api/collections")["collections"]] == ["mine"]
            assert get(client, "/api/info")["can_create"] is False
            assert client.get("/api/collections/other").status_code == 404
            assert client.post("/api/collections", json={"name": "new"}).status_code == 403
            assert client.delete("/api/collections/mine").status_code == 403

    def test_one_made_anew_by_another_process_is_seen(self, notes: TestClient) -> None:
        from embedlab.search import remove_collection

        assert get(notes, "/api/collections/notes/search", query="file")["hits"]
        remove_collection("notes")
        assert notes.get("/api/collections/notes/search?query=file").status_code == 404
        Collection.create("notes").add(["something about a file"])
        hits = get(notes, "/api/collections/notes/search", query="file")["hits"]
        assert [hit["text"] for hit in hits] == ["something about a file"]


class TestDocuments:
    def test_they_are_listed_in_pages(self, notes: TestClient) -> None:
        everything = get(notes, "/api/collections/notes/documents")
        sources = [each["source"] for each in everything["documents"]]
        assert sources == sorted(sources)
        assert everything["total"] == 5  # the table has two
        page = get(notes, "/api/collections/notes/documents", offset=1, limit=2)
        assert [each["source"] for each in page["documents"]] == sources[1:3]
        assert get(notes, "/api/collections/notes/documents", prefix="guide/")["total"] == 2
        assert all(each["uploaded"] for each in everything["documents"])

    def test_deleted_ones_stay_away(self, notes: TestClient, home: Path) -> None:
        answer = notes.delete("/api/collections/notes/documents", params={"source": ["money.txt", "no-such"]})
        assert answer.json() == {"deleted": 1}
        assert not list(home.rglob("money.txt"))
        finished(notes, upload(notes, "notes", ("new.txt", "new words")).json()["job"])
        sources = [each["source"] for each in get(notes, "/api/collections/notes/documents")["documents"]]
        assert "money.txt" not in sources
        assert "new.txt" in sources

    def test_deleting_what_is_not_there_says_so(self, notes: TestClient) -> None:
        answer = notes.delete("/api/collections/notes/documents", params={"source": "no-such"})
        assert answer.status_code == 404
        assert notes.delete("/api/collections/notes/documents").status_code == 400

    def test_folders_indexed_in_place_are_left_alone(self, client: TestClient, tmp_path: Path) -> None:
        (tmp_path / "kept.txt").write_text("kept words")
        Collection.create("notes").index([tmp_path])
        assert get(client, "/api/collections/notes/documents")["documents"][0]["uploaded"] is False
        finished(client, upload(client, "notes", ("up.txt", "uploaded words")).json()["job"])
        assert get(client, "/api/collections/notes/documents")["total"] == 2
        assert client.delete("/api/collections/notes").status_code == 200
        assert (tmp_path / "kept.txt").exists()


class TestSearch:
    @pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
    def test_both_ways_of_asking_agree_with_the_library(
        self, library: TestClient, library_path: Path, mode: Any
    ) -> None:
        asked = {"query": "open a file", "mode": mode, "top_k": 3, "explain": True}
        by_link = get(library, "/api/collections/notes/search", **asked)
        by_body = library.post("/api/collections/notes/search", json=asked).json()
        assert by_link["hits"] == by_body["hits"]
        expected = Collection.open(library_path).search("open a file", mode=mode, top_k=3, explain=True)
        assert [hit["id"] for hit in by_link["hits"]] == [hit.id for hit in expected]
        first, best = by_link["hits"][0], expected[0]
        assert first["source"] == "guide/start.md"
        assert first["score"] == pytest.approx(best.score)
        assert first["parts"] == pytest.approx(dict(best.parts))
        assert [first["text"][start:end].lower() for start, end in first["highlights"]].count("file") >= (
            mode != "dense"
        )
        assert by_link["version"] == get(library, "/api/collections/notes")["version"]

    def test_parts_are_told_on_request_only(self, library: TestClient) -> None:
        hit = get(library, "/api/collections/notes/search", query="file")["hits"][0]
        assert hit["parts"] is None
        assert hit["matched"] is None

    def test_weight_moves_between_words_and_meaning(self, library: TestClient) -> None:
        ids = {
            weight: [
                hit["id"] for hit in get(library, "/api/collections/notes/search", query="file", weight=weight)["hits"]
            ]
            for weight in (0, 1)
        }
        dense = get(library, "/api/collections/notes/search", query="file", mode="dense")["hits"]
        assert ids[1] == [hit["id"] for hit in dense]
        assert ids[0][0] in ids[1]

    def test_nothing_found_is_no_error(self, library: TestClient) -> None:
        assert get(library, "/api/collections/notes/search", query="zzzqqq", mode="lexical")["hits"] == []

    @pytest.mark.parametrize(
        ("params", "field"),
        [
            ({}, "query"),
            ({"query": ""}, "query"),
            ({"query": "  "}, "query"),
            ({"query": "x" * 4001}, "query"),
            ({"query": "x", "top_k": 0}, "top_k"),
            ({"query": "x", "top_k": 101}, "top_k"),
            ({"query": "x", "top_k": "many"}, "top_k"),
            ({"query": "x", "mode": "best"}, "mode"),
            ({"query": "x", "weight": 1.5}, "weight"),
            ({"query": "x", "weight": "nan"}, "weight"),
            ({"query": "x", "filter": "no_such_column = 1"}, "filter"),
            ({"query": "x", "filter": "format = "}, "filter"),
            ({"query": "x", "filter": "1=1; DROP TABLE passages"}, "filter"),
            ({"query": "x", "filter": " "}, "filter"),
            ({"query": "x", "filter": "1 / 0 = 1"}, "filter"),
            ({"query": "x", "filter": "length(repeat(source, 1000000000)) > 1"}, "filter"),
            ({"query": "x", "filter": 'length("repeat" (source, 9)) > 1'}, "filter"),
            ({"query": "x", "filter": "(" * 1500 + "true" + ")" * 1500}, "filter"),
            ({"query": "x", "filter": "NOT " * 900 + "true"}, "filter"),
            ({"query": "x", "explain": "perhaps"}, "explain"),
        ],
    )
    def test_what_is_wrong_is_refused_by_name(self, library: TestClient, params: dict[str, Any], field: str) -> None:
        message = refused(library, 400, field, "/api/collections/notes/search", **params)
        assert message.startswith(field)
        assert ".rs:" not in message  # where in the store's sources it was noticed is of no use to callers

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"query": 5}, "query"),
            ({"query": "x", "top_k": "5"}, "top_k"),
            ({"query": "x", "top_k": True}, "top_k"),
            ({"query": "x", "top_k": 10**30}, "top_k"),
            ({"query": "x", "topk": 5}, "topk"),
            ({"query": "x" * 5000}, "query"),
            ({"query": "x", "filter": "x" * 5000}, "filter"),
            ({"query": "\ud800"}, "query"),
        ],
    )
    def test_bodies_are_taken_at_their_word(self, library: TestClient, body: dict[str, Any], field: str) -> None:
        answer = library.post(
            "/api/collections/notes/search", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["field"] == field

    @pytest.mark.parametrize(
        "condition",
        [
            "format = 'md' AND (source LIKE 'guide/%' OR title IN ('Start'))",
            "starts_with(source, 'guide/') AND length(lower(title)) > 1",
            "source != 'repeat(x, 5)' AND format = 'md'",
            " OR ".join(["format = 'md'"] * 200),
        ],
    )
    def test_usual_filters_pass(self, library: TestClient, condition: str) -> None:
        hits = get(library, "/api/collections/notes/search", query="a file", mode="dense", filter=condition)["hits"]
        assert {hit["format"] for hit in hits} == {"md"}

    def test_filters_of_facets_work_as_they_are(self, library: TestClient) -> None:
        for facet in get(library, "/api/collections/notes/facets")["facets"]:
            for value in facet["values"]:
                hits = get(
                    library, "/api/collections/notes/search", query="a file", mode="dense", filter=value["filter"]
                )["hits"]
                assert len({hit["source"] for hit in hits}) == value["documents"]

    def test_facets_name_formats_folders_and_metadata(self, library: TestClient) -> None:
        facets = {each["field"]: each["values"] for each in get(library, "/api/collections/notes/facets")["facets"]}
        assert [value["value"] for value in facets["folder"]] == ["guide"]
        assert sum(value["documents"] for value in facets["format"]) == 5

    def test_a_folder_with_quotes_and_wildcards_is_filtered_exactly(self, client: TestClient) -> None:
        client.post("/api/collections", json={"name": "n"})
        files = [("o'my_%/a.txt", "one"), ("oXmyYY/b.txt", "two")]
        finished(client, upload(client, "n", *files).json()["job"])
        folder = next(each for each in get(client, "/api/collections/n/facets")["facets"] if each["field"] == "folder")
        asked = {value["value"]: value["filter"] for value in folder["values"]}["o'my_%"]
        hits = get(client, "/api/collections/n/search", query="one two", filter=asked)["hits"]
        assert [hit["source"] for hit in hits] == ["o'my_%/a.txt"]


class TestPassages:
    def test_neighbours_stand_in_reading_order(self, client: TestClient) -> None:
        client.post("/api/collections", json={"name": "n"})
        text = "# Book\n\n" + "\n\n".join(f"## Part {number}\n\nText {number} about things." for number in range(8))
        finished(client, upload(client, "n", ("book.md", text)).json()["job"])
        hits = get(client, "/api/collections/n/search", query="text 4", mode="lexical", top_k=20)["hits"]
        middle = next(hit for hit in hits if "Text 4" in hit["text"])
        shown = get(client, f"/api/collections/n/passages/{middle['id']}", context=2)
        order = [*shown["before"], shown["passage"], *shown["after"]]
        assert len(order) == 5
        assert [each["start"] for each in order] == sorted(each["start"] for each in order)
        assert text[middle["start"] : middle["end"]] == shown["passage"]["text"]

    def test_similar_leaves_the_passage_itself_out(self, library: TestClient) -> None:
        first = get(library, "/api/collections/notes/search", query="file")["hits"][0]["id"]
        hits = get(library, f"/api/collections/notes/passages/{first}/similar", top_k=50)["hits"]
        assert first not in [hit["id"] for hit in hits]
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
        only = get(library, f"/api/collections/notes/passages/{first}/similar", filter="format = 'txt'")["hits"]
        assert {hit["format"] for hit in only} == {"txt"}

    @pytest.mark.parametrize("name", ["nope", "a-1", "-1", "'; DROP TABLE x--1", "a-99999999999999999999", "x-²"])
    def test_an_unknown_one_is_not_found(self, library: TestClient, name: str) -> None:
        refused(library, 404, "id", f"/api/collections/notes/passages/{name}")
        refused(library, 404, "id", f"/api/collections/notes/passages/{name}/similar")


class TestMap:
    def test_every_passage_has_its_place(self, library: TestClient) -> None:
        shown = get(library, "/api/collections/notes/map")
        points = shown["points"]
        assert {len(column) for column in points.values()} == {shown["shown"]}
        assert shown["total"] == get(library, "/api/collections/notes")["passages"]
        assert all(-1 <= value <= 1 for value in points["x"] + points["y"])
        assert shown["explained"][0] >= shown["explained"][1] >= 0
        assert set(points["group"]) == {"guide", "txt", "csv"}
        assert get(library, "/api/collections/notes/map") == shown

    def test_single_passages_are_placed_as_on_the_map(self, library: TestClient) -> None:
        points = get(library, "/api/collections/notes/map")["points"]
        asked = [points["id"][2], "unknown-0", points["id"][0]]
        placed = get(library, "/api/collections/notes/map/places", id=asked)["points"]
        assert placed["id"] == [asked[0], asked[2]]
        assert placed["x"] == [points["x"][2], points["x"][0]]

    def test_a_sample_is_even_and_steady(self, client: TestClient) -> None:
        Collection.create("many").add([f"text number {number}" for number in range(200)])
        once = get(client, "/api/collections/many/map", limit=50)
        assert (once["total"], once["shown"]) == (200, 50)
        assert get(client, "/api/collections/many/map", limit=50) == once
        assert len(set(once["points"]["id"])) == 50

    def test_an_empty_collection_has_an_empty_map(self, client: TestClient) -> None:
        client.post("/api/collections", json={"name": "n"})
        assert get(client, "/api/collections/n/map")["points"]["id"] == []
        assert get(client, "/api/collections/n/facets")["facets"][0]["values"] == []
        assert get(client, "/api/collections/n/search", query="x")["hits"] == []


class TestPages:
    def test_the_page_and_its_files_load_nothing_from_elsewhere(self, library: TestClient) -> None:
        page = library.get("/")
        assert page.status_code == 200
        assert page.headers["Content-Type"].startswith("text/html")
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]

    def test_files_are_not_sent_twice(self, library: TestClient) -> None:
        first = library.get("/static/index.html")
        again = library.get("/static/index.html", headers={"If-None-Match": first.headers["ETag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")

    @pytest.mark.parametrize(
        "path", ["../serve/app.py", "..%2fserve%2fapp.py", ".hidden", "%2e%2e/%2e%2e/pyproject.toml", "none"]
    )
    def test_nothing_else_is_a_file(self, library: TestClient, path: str) -> None:
        assert library.get(f"/static/{path}").status_code == 404

    def test_a_missing_page_is_explained(self, tmp_path: Path) -> None:
        with new_client(web_folder=tmp_path) as client:
            assert "install embedlab again" in client.get("/").json()["error"]["message"]

    def test_the_reference_names_every_route_and_no_other_host(self, library: TestClient) -> None:
        page = library.get("/docs").text
        routes = list(library.get("/openapi.json").json()["paths"])
        assert len(routes) > 15
        assert not [route for route in routes if route not in page]
        assert "http://" not in page.replace("http://localhost", "")
        assert "https://" not in page
        assert "<script" not in page

    def test_figures_tell_what_happened(self, notes: TestClient) -> None:
        notes.get("/api/collections/notes/search?query=x")
        notes.post("/v1/embeddings", json={"model": "default", "input": ["a", "b c"]})
        figures = notes.get("/metrics").text
        for line in (
            'embedlab_searches_total{mode="hybrid"} 1.0',
            "embedlab_embeddings_total 2.0",
            "embedlab_tokens_total 3.0",
            'embedlab_jobs_total{state="done"} 1.0',
            "embedlab_jobs_open 0.0",
        ):
            assert line in figures
        assert "embedlab_passages_indexed_total" in figures

    def test_ready_only_with_the_model(self) -> None:
        app = create_app()
        loading = TestClient(app, base_url="http://localhost")  # without its start
        assert loading.get("/readyz").status_code == 503
        assert loading.get("/healthz").status_code == 200

    def test_two_applications_keep_their_figures_apart(self) -> None:
        with new_client() as one, new_client() as other:
            one.get("/api/info")
            assert 'route="/api/info"' not in other.get("/metrics").text


def test_too_many_at_once_are_told_to_return(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(waiting_calls=1, requests_per_s=0)
    release = threading.Event()
    with TestClient(create_app(Settings(workers=1, limits=limits)), base_url="http://localhost") as client:
        Collection.create("n").add(["text"])
        monkeypatch.setattr(Collection, "search", lambda *args, **kwargs: release.wait(20) and [])
        statuses: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: statuses.append(client.get("/api/collections/n/search?query=x").status_code)
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for _ in range(200):
            if len(statuses) == 2:
                break
            threading.Event().wait(0.02)
        assert client.get("/healthz").status_code == 200
        release.set()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200, 200, 503, 503]
