"""Uploads: hostile names, limits, broken transfers, and what becomes of them as jobs."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from embedlab import Collection
from embedlab.serve.app import create_app
from embedlab.serve.jobs import Job, Jobs
from embedlab.serve.metrics import Metrics
from embedlab.serve.names import BadName, safe_name
from embedlab.serve.settings import Limits, Settings

from .conftest import finished, new_client, serving, upload, wait_for

HOSTILE = [
    "../up.md",
    "a/../../up.md",
    "..",
    "a/..",
    "/etc/cron.d/x.md",
    "//server/x.md",
    "C:\\windows\\x.md",
    "..\\up.md",
    "a\\b.md",
    "nul\0.md",
    "line\nbreak.md",
    "tab\t.md",
    "\x7f.md",
    "right\u202eleft.md",
    ".hidden.md",
    "a/.git/x.md",
    "a//b.md",
    "./a.md",
    "",
    " ",
    " a.md",
    "a.md ",
    "a.md.",
    "CON.md",
    "aux",
    "a/com1.txt",
    "nul.tar.md",
    "x:stream.md",
    "a?.md",
    "a*.md",
    "a|b.md",
    "<a>.md",
    "x" * 600 + ".md",
    "x" * 250 + ".md",
    "é" * 120 + ".md",
    "/".join("a" * 20) + ".md",
    "half \udcff surrogate.md",
]


class TestNames:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_ones_are_refused(self, name: str) -> None:
        with pytest.raises(BadName, match="send a plain relative name"):
            safe_name(name)

    @pytest.mark.parametrize(
        "name", ["a.md", "a/b/c.txt", "Größe 2024 (final).pdf", "日本語.md", "a..b.md", "it's #1 & more.md"]
    )
    def test_usual_ones_stay_as_they_are(self, name: str) -> None:
        assert safe_name(name).as_posix() == name

    def test_the_same_name_written_in_two_ways_is_one_file(self) -> None:
        assert safe_name("u\u0308.md") == safe_name("\u00fc.md")

    @given(st.text(max_size=60))
    def test_whatever_passes_stays_inside(self, name: str) -> None:
        try:
            path = safe_name(name)
        except BadName:
            return
        root = Path("/srv/uploads")
        assert (root / path).resolve().is_relative_to(root)
        assert (root / path).resolve() != root
        assert safe_name(path.as_posix()) == path


def multipart(name: str, content: bytes = b"text", field: str = "files") -> tuple[bytes, dict[str, str]]:
    """A multipart body made by hand: clients clean names before they send them, attackers do not."""
    head = f'--B\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    body = head.encode("utf-8", "surrogateescape") + content + b"\r\n--B--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=B"}


@pytest.fixture
def empty(client: TestClient) -> TestClient:
    assert client.post("/api/collections", json={"name": "n"}).status_code == 201
    return client


def files_of(home: Path) -> list[str]:
    """What lies in the upload folder, and everything of uploads that lies anywhere else."""
    folder = home / "collections" / "n"
    inside = [
        path.relative_to(folder / "uploads").as_posix() for path in (folder / "uploads").rglob("*") if path.is_file()
    ]
    return sorted(inside) + [path.name for path in folder.glob(".uploads-*")]


class TestHostileUploads:
    def test_nothing_is_written(self, empty: TestClient, home: Path) -> None:
        before = sorted(home.rglob("*"))
        for name in HOSTILE:
            # a line break would end the header; a full Windows path is cut down to its last part, as browsers once did
            if name and not {"\n", "\0"} & set(name) and not name.startswith("C:"):
                body, headers = multipart(name)
                answer = empty.post("/api/collections/n/documents", content=body, headers=headers)
                assert (name, answer.status_code) == (name, 400)
                assert answer.json()["error"]["field"] == "files"
        assert sorted(path for path in home.rglob("*") if path.name != "uploads") == before
        assert files_of(home) == []

    def test_a_windows_path_is_cut_down_to_the_name(self, empty: TestClient, home: Path) -> None:
        body, headers = multipart("C:\\windows\\x.md")
        answer = empty.post("/api/collections/n/documents", content=body, headers=headers)
        finished(empty, answer.json()["job"])
        assert answer.json()["accepted"] == files_of(home) == ["x.md"]

    def test_good_files_of_a_mixed_upload_are_kept(self, empty: TestClient, home: Path) -> None:
        answer = upload(
            empty, "n", ("good.md", "fine"), ("../bad.md", "bad"), ("program.exe", "MZ"), ("a/b.md", "fine")
        )
        told = answer.json()
        assert answer.status_code == 202
        assert told["accepted"] == ["good.md", "a/b.md"]
        assert [each["source"] for each in told["refused"]] == ["../bad.md", "program.exe"]
        assert finished(empty, told["job"])["state"] == "done"
        assert files_of(home) == ["a/b.md", "good.md"]

    def test_a_file_can_not_become_a_folder(self, empty: TestClient, home: Path) -> None:
        finished(empty, upload(empty, "n", ("a.md", "one")).json()["job"])
        answer = upload(empty, "n", ("a.md/b.md", "two"), ("c/d.md", "three"), ("c/d.md/e.md", "four"))
        told = answer.json()
        finished(empty, told["job"])
        assert told["accepted"] == ["c/d.md"]
        assert len(told["refused"]) == 2
        assert files_of(home) == ["a.md", "c/d.md"]

    def test_a_link_in_the_upload_folder_is_replaced_not_followed(
        self, empty: TestClient, home: Path, tmp_path: Path
    ) -> None:
        secret = tmp_path / "secret.md"
        secret.write_text("secret")
        folder = home / "collections" / "n" / "uploads"
        folder.mkdir()
        (folder / "a.md").symlink_to(secret)
        finished(empty, upload(empty, "n", ("a.md", "mine")).json()["job"])
        assert secret.read_text() == "secret"
        assert (folder / "a.md").read_text() == "mine"


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "files", "status"),
        [
            (Limits(file_bytes=1000), [("a.md", "x" * 1001)], 413),
            (Limits(file_bytes=1000), [("a.md", "x" * 1000)], 202),
            (Limits(file_bytes=1000), [("a.md", "fine"), ("b.exe", "x" * 5000)], 413),
            (Limits(upload_bytes=5000), [("a.md", "x" * 3000), ("b.md", "x" * 3000)], 413),
            (Limits(upload_files=2), [("a.md", "x"), ("b.md", "x"), ("c.md", "x")], 413),
            (Limits(body_bytes=100), [("a.md", "x" * 5000)], 202),
        ],
    )
    def test_all_or_nothing(self, home: Path, limits: Limits, files: list[tuple[str, str]], status: int) -> None:
        with new_client(limits=limits) as client:
            client.post("/api/collections", json={"name": "n"})
            answer = upload(client, "n", *files)
            assert answer.status_code == status, answer.text
            if status == 202:
                assert finished(client, answer.json()["job"])["state"] == "done"
            else:
                assert answer.json()["error"]["field"] in ("files", "body")
        assert files_of(home) == ([name for name, _ in files] if status == 202 else [])

    @pytest.mark.parametrize(
        ("body", "headers", "field"),
        [
            (*multipart("a.md", field="file"), "file"),
            (b"--B--\r\n", {"Content-Type": "multipart/form-data; boundary=B"}, "files"),
            (multipart("a.md")[0][:-12], {"Content-Type": "multipart/form-data; boundary=B"}, "body"),
            (b"no parts at all", {"Content-Type": "multipart/form-data; boundary=B"}, "body"),
            (b"", {"Content-Type": "multipart/form-data; boundary=B"}, "body"),
            (multipart("a.md")[0], {"Content-Type": "multipart/form-data"}, "Content-Type"),
            (multipart("a.md")[0], {"Content-Type": "multipart/form-data; boundary=" + "B" * 500}, "body"),
            (b"{}", {"Content-Type": "application/json"}, "Content-Type"),
        ],
    )
    def test_what_is_no_upload_is_refused(
        self, empty: TestClient, home: Path, body: bytes, headers: dict[str, str], field: str
    ) -> None:
        answer = empty.post("/api/collections/n/documents", content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"]["field"] == field
        assert files_of(home) == []

    def test_a_full_disk_keeps_nothing_and_says_so(
        self, empty: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finished(empty, upload(empty, "n", ("a.md", "first")).json()["job"])

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("embedlab.serve.uploads._Parts._on_data", full)
        answer = upload(empty, "n", ("a.md", "second"))
        assert answer.status_code == 507
        assert "disk is full" in answer.json()["error"]["message"]
        assert files_of(home) == ["a.md"]
        assert empty.get("/api/collections/n/search?query=first").json()["hits"]

    def test_a_caller_who_hangs_up_leaves_nothing(self, home: Path) -> None:
        with serving(create_app(Settings())) as address:
            httpx.post(f"{address}/api/collections", json={"name": "n"})
            parts = urlsplit(address)
            with socket.create_connection((str(parts.hostname), parts.port or 0)) as line:
                line.sendall(
                    b"POST /api/collections/n/documents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n"
                    b"Content-Type: multipart/form-data; boundary=B\r\n\r\n" + multipart("a.md", b"x" * 5000)[0][:-8]
                )
                wait_for(lambda: list((home / "collections" / "n").glob(".uploads-*/0")))
            wait_for(lambda: not list((home / "collections" / "n").glob(".uploads-*")))
            assert httpx.get(f"{address}/healthz").status_code == 200
        assert files_of(home) == []

    def test_leftovers_of_a_killed_process_are_swept_up(self, home: Path) -> None:
        with new_client() as client:
            client.post("/api/collections", json={"name": "n"})
            left = home / "collections" / "n" / ".uploads-dead"
            left.mkdir()
            (left / "0").write_text("half a file")
            os.utime(left, (0, 0))  # far older than any upload may take
            body, headers = multipart("../x.md")
            client.post("/api/collections/n/documents", content=body, headers=headers)
            assert not left.exists()


class TestIndexing:
    def test_a_file_that_can_not_be_read_is_named_and_the_rest_goes_on(self, empty: TestClient) -> None:
        answer = upload(
            empty, "n", ("good.md", "readable words"), ("bad.pdf", b"%PDF-1.7 broken"), ("bad.docx", b"PK\x03\x04")
        )
        job = finished(empty, answer.json()["job"])
        assert job["state"] == "done"
        assert sorted(error["source"] for error in job["errors"]) == ["bad.docx", "bad.pdf"]
        assert all(error["message"] for error in job["errors"])
        assert empty.get("/api/collections/n/search?query=readable").json()["hits"]
        # a later upload does not complain of them again
        later = finished(empty, upload(empty, "n", ("more.md", "more")).json()["job"])
        assert later["errors"] == []

    def test_a_file_sent_again_replaces_the_first(self, empty: TestClient) -> None:
        for text in ("old words about cheese", "new words about trains"):
            finished(empty, upload(empty, "n", ("a.md", text)).json()["job"])
        hits = empty.get("/api/collections/n/search?query=words").json()["hits"]
        assert [hit["text"] for hit in hits] == ["new words about trains"]

    def test_searching_goes_on_while_a_job_writes(self, empty: TestClient) -> None:
        finished(empty, upload(empty, "n", ("first.md", "the very first document")).json()["job"])
        files = [(f"{number}.md", f"# Number {number}\n\n" + "many words here. " * 400) for number in range(300)]
        job = upload(empty, "n", *files).json()["job"]
        seen = 0
        while empty.get(f"/api/jobs/{job['id']}").json()["state"] in ("queued", "running"):
            hits = empty.get("/api/collections/n/search?query=very+first+document&mode=lexical").json()["hits"]
            assert hits[0]["source"] == "first.md"
            shown = empty.get("/api/collections/n")
            assert shown.status_code == 200, shown.text
            assert shown.json()["writing"] in (True, False)
            seen += 1
        done = finished(empty, job)
        assert seen > 0
        assert (done["state"], done["documents_done"], done["errors"]) == ("done", 301, [])
        assert done["passages"] >= 300
        assert done["passages_per_s"] > 0

    def test_writing_calls_wait_their_turn(self, empty: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        go = hold_indexing(monkeypatch)
        job = upload(empty, "n", ("a.md", "words")).json()["job"]
        for method, path in (("DELETE", "/api/collections/n"), ("DELETE", "/api/collections/n/documents?source=a.md")):
            answer = empty.request(method, path)
            assert answer.status_code == 409
            assert "is being written" in answer.json()["error"]["message"]
        go.set()
        finished(empty, job)

    def test_a_cancelled_upload_is_taken_out_again(
        self, empty: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finished(empty, upload(empty, "n", ("old.md", "old")).json()["job"])
        go = hold_indexing(monkeypatch)
        running = upload(empty, "n", ("a.md", "one")).json()["job"]
        waiting = upload(empty, "n", ("b.md", "two")).json()["job"]
        wait_for(lambda: empty.get(f"/api/jobs/{running['id']}").json()["state"] == "running")
        assert empty.get(f"/api/jobs/{waiting['id']}").json()["state"] == "queued"
        for job in (waiting, running):
            assert empty.post(f"/api/jobs/{job['id']}/cancel").status_code == 200
        assert empty.get(f"/api/jobs/{waiting['id']}").json()["state"] == "cancelled"
        go.set()
        assert finished(empty, running)["state"] == "cancelled"
        assert files_of(home) == ["old.md"]
        assert empty.post(f"/api/jobs/{running['id']}/cancel").json()["state"] == "cancelled"
        listed = empty.get("/api/jobs?collection=n").json()["jobs"]
        assert [job["id"] for job in listed][:2] == [waiting["id"], running["id"]]

    def test_a_service_that_stops_goes_on_at_its_next_start(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch, new_client() as client:
            client.post("/api/collections", json={"name": "n"})
            go = hold_indexing(patch)
            upload(client, "n", ("a.md", "words to find"))
            upload(client, "n", ("b.md", "more words"))
            threading.Timer(0.2, go.set).start()
        assert files_of(home) == ["a.md", "b.md"]
        assert Collection.open("n").documents() == []
        with new_client() as client:
            [job] = client.get("/api/jobs").json()["jobs"]
            assert finished(client, job)["state"] == "done"
            assert client.get("/api/collections/n/search?query=words").json()["hits"]
        with new_client() as client:
            assert client.get("/api/jobs").json()["jobs"] == []

    def test_an_unknown_job_is_not_found(self, client: TestClient) -> None:
        for answer in (client.get("/api/jobs/none"), client.post("/api/jobs/none/cancel")):
            assert answer.status_code == 404
            assert answer.json()["error"]["field"] == "id"


def hold_indexing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Keep jobs from starting to index until the event is set."""
    go, index = threading.Event(), Collection.index

    def held(self: Collection, *args: Any, on_progress: Callable[[Any], None], **kwargs: Any) -> Any:
        assert go.wait(20)
        return index(self, *args, on_progress=on_progress, **kwargs)

    monkeypatch.setattr(Collection, "index", held)
    return go


class TestJobs:
    def test_one_collection_is_written_by_one_job_at_a_time(self) -> None:
        jobs, lock, order = Jobs(Metrics(), 100), threading.Lock(), []

        def work(job: Job) -> None:
            assert lock.acquire(blocking=False)
            order.append(job.id)
            time.sleep(0.005)
            lock.release()

        submitted = [jobs.submit(Job("a", 1), work) for _ in range(20)]
        wait_for(lambda: not jobs.is_writing("a"))
        assert order == [job.id for job in submitted]
        assert {job.state for job in submitted} == {"done"}
        jobs.close()

    def test_a_failure_ends_one_job_only_and_hides_its_trace(self, caplog: pytest.LogCaptureFixture) -> None:
        jobs = Jobs(Metrics(), 100)
        broken = jobs.submit(Job("a", 1), lambda job: [][1])
        fine = jobs.submit(Job("a", 1), lambda job: None)
        wait_for(lambda: not jobs.is_writing("a"))
        assert (broken.state, fine.state) == ("failed", "done")
        assert "IndexError" in caplog.text
        assert "IndexError" not in str(broken.message)
        jobs.close()

    def test_too_many_are_refused(self) -> None:
        jobs, go = Jobs(Metrics(), 2), threading.Event()
        for _ in range(2):
            jobs.submit(Job("a", 1), lambda job: go.wait(20) and None)
        with pytest.raises(Exception, match="too many jobs"):
            jobs.submit(Job("b", 1), lambda job: None)
        go.set()
        jobs.close()
        with pytest.raises(Exception, match="too many jobs"):
            jobs.submit(Job("b", 1), lambda job: None)

    def test_old_ones_are_forgotten(self) -> None:
        jobs = Jobs(Metrics(), 1000)
        for _ in range(260):
            jobs.submit(Job("a", 1), lambda job: None)
        wait_for(lambda: not jobs.is_writing("a"))
        jobs.submit(Job("a", 1), lambda job: None)
        jobs.close()
        assert len(jobs.all()) <= 201
