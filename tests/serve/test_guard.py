"""Who is let in, how much, how often and how long, measured at the socket where it matters."""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from embedlab._core.errors import InputError
from embedlab.serve.errors import install_error_handlers
from embedlab.serve.guard import Guard
from embedlab.serve.metrics import Metrics
from embedlab.serve.rates import Buckets
from embedlab.serve.settings import Limits, Settings

from .conftest import serving

KEY = "k" * 32


def small_app(settings: Settings) -> FastAPI:
    app = FastAPI()
    app.state.metrics = Metrics()
    app.add_middleware(Guard, settings=settings, metrics=app.state.metrics)
    install_error_handlers(app)

    @app.get("/")
    async def page() -> dict[str, str]:
        return {"page": "yes"}

    @app.get("/api/slow")
    async def slow() -> None:
        await asyncio.sleep(30)

    @app.get("/api/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    @app.api_route("/api/echo/{name}", methods=["GET", "POST", "DELETE"])
    async def echo(name: str, request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    return app


def client_of(settings: Settings | None = None, **kwargs: Any) -> TestClient:
    return TestClient(small_app(settings or Settings(**kwargs)), base_url="http://localhost:8080")


def problem(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "field"}
    return error


class TestSettings:
    @pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.4", "example.org", "127.1"])
    def test_a_host_others_can_reach_needs_a_key(self, host: str) -> None:
        with pytest.raises(InputError, match="EMBEDLAB_API_KEY"):
            Settings(host=host)
        assert Settings(host=host, api_key=KEY).host == host

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
    def test_loopback_needs_none(self, host: str) -> None:
        assert Settings(host=host).is_loopback

    @pytest.mark.parametrize("key", ["", "short", "k" * 15, "k" * 20 + "\n"])
    def test_a_weak_key_is_refused(self, key: str) -> None:
        with pytest.raises(InputError, match="api_key has"):
            Settings(api_key=key)

    def test_the_key_is_not_shown(self) -> None:
        assert KEY not in repr(Settings(api_key=KEY))

    @pytest.mark.parametrize("wrong", [{"body_bytes": 0}, {"timeout_s": 0.0}, {"requests_per_s": -1.0}, {"top_k": -5}])
    def test_limits_that_refuse_everything_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(InputError, match=next(iter(wrong))):
            Limits(**wrong)  # type: ignore[arg-type]


class TestHostAndOrigin:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST:1"])
    def test_own_names_are_served(self, host: str) -> None:
        assert client_of().get("/api/echo/a", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "a@b:c"]
    )
    def test_a_rebound_name_is_refused_everywhere(self, host: str) -> None:
        for path in ("/", "/api/echo/a"):
            answer = client_of().get(path, headers={"Host": host})
            assert answer.status_code == 403
            assert problem(answer)["field"] == "Host"

    def test_more_names_can_be_allowed(self) -> None:
        client = client_of(allowed_hosts=("box.lan",))
        assert client.get("/", headers={"Host": "box.lan:8080"}).status_code == 200

    @pytest.mark.parametrize(
        "origin", ["http://evil.example", "null", "http://localhost:9999", "https://localhost:8080"]
    )
    def test_foreign_pages_change_nothing(self, origin: str) -> None:
        for method in ("POST", "DELETE"):
            answer = client_of().request(method, "/api/echo/a", headers={"Origin": origin})
            assert answer.status_code == 403
            assert problem(answer)["field"] == "Origin"

    def test_the_own_page_may(self) -> None:
        headers = {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
        assert client_of().post("/api/echo/a", headers=headers).status_code == 200

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_foreign_pages_read_nothing(self, site: str) -> None:
        answer = client_of().get("/api/echo/a", headers={"Sec-Fetch-Site": site})
        assert problem(answer)["type"] == "permission_error"

    def test_no_sharing_headers_are_sent(self) -> None:
        answer = client_of().get("/api/echo/a", headers={"Origin": "http://evil.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]


class TestKey:
    def test_every_private_path_wants_it(self) -> None:
        client = client_of(api_key=KEY)
        for path in ("/api/echo/a", "/v1/models", "/metrics", "/api/unknown"):
            answer = client.get(path)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/").status_code == 200

    @pytest.mark.parametrize(
        "header", [KEY, f"Basic {KEY}", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer ü"]
    )
    def test_a_wrong_one_is_refused(self, header: str) -> None:
        client = client_of(api_key=KEY)
        assert client.get("/api/echo/a", headers={"Authorization": header.encode()}).status_code == 401

    @pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer  {KEY} "])
    def test_the_right_one_opens(self, header: str) -> None:
        client = client_of(host="0.0.0.0", api_key=KEY)
        headers = {"Authorization": header, "Origin": "http://elsewhere", "Host": "any.name"}
        assert client.post("/api/echo/a", headers=headers).status_code == 200


class TestRate:
    def test_a_client_that_asks_too_often_is_told_when_to_return(self) -> None:
        client = client_of(limits=Limits(requests_per_s=0.5, burst=3))
        answers = [client.get("/api/echo/a") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 2
        assert problem(answers[-1])["type"] == "rate_limit_error"
        assert client.get("/").status_code == 200  # the page itself stays reachable

    def test_zero_is_no_limit(self) -> None:
        client = client_of(limits=Limits(requests_per_s=0.0, burst=1))
        assert {client.get("/api/echo/a").status_code for _ in range(20)} == {200}

    def test_buckets_follow_the_rate_for_each_client(self) -> None:
        now = 0.0
        buckets = Buckets(10.0, 5, clock=lambda: now)
        passed = {"a": 0, "b": 0}
        for _ in range(1000):
            now += 0.01
            for name in passed:
                passed[name] += buckets.take(name) == 0.0
        # five at once, then ten a second for ten seconds
        assert passed == {"a": pytest.approx(104, abs=1), "b": pytest.approx(104, abs=1)}

    def test_strangers_do_not_pile_up(self) -> None:
        buckets = Buckets(1.0, 1)
        for number in range(12_000):
            buckets.take(str(number))
        assert len(buckets._clients) == 10_000


class TestAnswers:
    def test_a_failure_shows_a_number_and_no_trace(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.ERROR, logger="embedlab.serve.guard"):
            answer = client_of().get("/api/broken")
        assert answer.status_code == 500
        assert "secret detail" not in answer.text
        assert "secret detail" in caplog.text
        number = problem(answer)["message"].rsplit(" ", 1)[-1]
        assert number in caplog.text

    def test_a_slow_call_is_given_up(self) -> None:
        began = time.monotonic()
        answer = client_of(limits=Limits(timeout_s=0.2)).get("/api/slow")
        assert answer.status_code == 504
        assert time.monotonic() - began < 5
        assert problem(answer)["type"] == "timeout_error"

    def test_every_answer_carries_the_headers(self) -> None:
        client = client_of()
        for path in ("/", "/api/echo/a", "/nothing", "/api/broken"):
            answer = client.get(path)
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert client.get("/api/echo/a").headers["Cache-Control"] == "no-store"

    def test_calls_are_counted_by_route_not_by_path(self) -> None:
        app = small_app(Settings())
        client = TestClient(app, base_url="http://localhost")
        for name in "abc":
            client.get(f"/api/echo/{name}")
        client.get("/wp-login.php")
        figures = app.state.metrics.text()[0].decode()
        assert 'embedlab_requests_total{method="GET",route="/api/echo/{name}",status="200"} 3.0' in figures
        assert 'embedlab_requests_total{method="GET",route="other",status="404"} 1.0' in figures
        assert "embedlab_requests_in_flight 0.0" in figures


@pytest.fixture
def address() -> Iterator[str]:
    limits = Limits(body_bytes=100_000, idle_s=0.5, timeout_s=10.0)
    with serving(small_app(Settings(limits=limits)), idle_s=0.5) as url:
        yield url


class TestAtTheSocket:
    def test_a_body_within_the_limit_passes(self, address: str) -> None:
        assert httpx.post(f"{address}/api/echo/a", content=b"x" * 100_000).json() == {"bytes": 100_000}

    def test_a_declared_body_too_large_is_refused(self, address: str) -> None:
        answer = httpx.post(f"{address}/api/echo/a", content=b"x" * 3_000_000)
        assert answer.status_code == 413
        assert answer.headers["Connection"] == "close"
        assert problem(answer)["field"] == "body"

    def test_an_undeclared_body_too_large_is_refused(self, address: str) -> None:
        answer = httpx.post(f"{address}/api/echo/a", content=(b"x" * 10_000 for _ in range(30)))
        assert answer.status_code == 413

    def test_an_endless_body_is_cut_off(self, address: str) -> None:
        with connection(address) as line:
            line.sendall(b"POST /api/echo/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            began, sent = time.monotonic(), 0
            try:
                while time.monotonic() - began < 10:
                    sent += line.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            except OSError:
                pass
            assert time.monotonic() - began < 5
            assert sent < 50_000_000

    def test_a_lie_about_the_length_is_refused(self, address: str) -> None:
        with connection(address) as line:
            line.sendall(b"POST /api/echo/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n")
            assert line.recv(100).startswith(b"HTTP/1.1 400")

    def test_a_client_that_waits_for_leave_gets_its_answer_first(self, address: str) -> None:
        with connection(address) as line:
            line.sendall(b"POST /api/echo/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n")
            line.sendall(b"Content-Length: 900000\r\n\r\n")
            assert line.recv(1000).startswith(b"HTTP/1.1 413")

    def test_a_head_that_trickles_in_is_cut_off(self, address: str) -> None:
        with connection(address) as line:
            assert closed_within(line, b"GET /api/echo/a HTTP/1.1\r\nX-Slow: " + b"a" * 100, pause_s=0.1) < 3

    def test_a_second_head_that_trickles_in_is_cut_off(self, address: str) -> None:
        with connection(address) as line:
            line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert line.recv(10_000).startswith(b"HTTP/1.1 200")
            assert closed_within(line, b"GET /api/echo/a HTTP/1.1\r\nX-Slow: " + b"a" * 100, pause_s=0.1) < 3

    def test_a_body_that_stops_is_given_up(self, address: str) -> None:
        with connection(address) as line:
            line.sendall(b"POST /api/echo/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
            began = time.monotonic()
            assert line.recv(1000).startswith(b"HTTP/1.1 408")
            assert time.monotonic() - began < 5

    def test_a_connection_is_used_many_times(self, address: str) -> None:
        parts = urlsplit(address)
        line = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=5)
        for _ in range(50):
            line.request("POST", "/api/echo/a", b"abc")
            assert line.getresponse().read() == b'{"bytes":3}'
            time.sleep(0.02)  # longer in all than a head may take
        line.close()


def connection(address: str) -> socket.socket:
    parts = urlsplit(address)
    return socket.create_connection((str(parts.hostname), parts.port or 80), timeout=10)


def closed_within(line: socket.socket, data: bytes, pause_s: float) -> float:
    """Send byte by byte; return after how many seconds the other side hung up."""
    began = time.monotonic()
    line.settimeout(pause_s)
    for byte in data:
        try:
            line.sendall(bytes([byte]))
            if line.recv(1000) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began
