"""Endpoints: what a server may answer, good and bad, through httpx's own mock transport."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable

import httpx
import numpy as np
import pytest

from embedlab._core.errors import EndpointError, InputError
from embedlab.models import Encoder, endpoint
from embedlab.models.endpoint import EndpointModel

URL = "http://server/v1#model-a"
Answer = Callable[[int, list[str]], httpx.Response]


def vectors(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0, 2.0] for text in texts]


def good(texts: list[str], *, as_base64: bool = True, rows: list[list[float]] | None = None) -> httpx.Response:
    rows = vectors(texts) if rows is None else rows
    encoded = [base64.b64encode(np.array(row, "<f4").tobytes()).decode() if as_base64 else row for row in rows]
    data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(encoded)]
    return httpx.Response(200, json={"data": data[::-1]})  # the order is told by index, not by place


def connect(answer: Answer, **options: object) -> tuple[EndpointModel, list[httpx.Request]]:
    """Connect to a server that answers the first request well and then as ``answer`` says."""
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        texts = json.loads(request.content)["input"]
        return good(texts) if len(requests) == 1 else answer(len(requests) - 1, texts)

    transport = httpx.MockTransport(handle)
    return EndpointModel(URL, transport=transport, total_timeout_s=0.3, **options), requests  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE_S", 0.01)
    for name in endpoint.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("as_base64", [True, False])
def test_vectors_are_unit_rows_in_the_order_of_the_texts(as_base64: bool) -> None:
    model, requests = connect(lambda _, texts: good(texts, as_base64=as_base64), batch_size=2)
    assert isinstance(model, Encoder)
    assert model.dim == 3
    seen: list[int] = []
    texts = ["a", "", "ccc", "dddd", "  "]
    got = model.encode_document(texts, on_progress=seen.append)
    expected = np.array(vectors(texts), dtype=np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    expected[[1, 4]] = 0
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert seen == [2, 2, 1]
    assert len(requests) == 1 + 2  # blank texts are not sent
    assert json.loads(requests[1].content) == {"model": "model-a", "input": ["a"], "encoding_format": "base64"}
    np.testing.assert_array_equal(model.encode_query(["ccc"])[0], got[2])
    model.close()


def test_a_busy_server_is_asked_again() -> None:
    statuses = iter([429, 503, 500])

    def answer(_: int, texts: list[str]) -> httpx.Response:
        status = next(statuses, 200)
        return good(texts) if status == 200 else httpx.Response(status, headers={"Retry-After": "0.01"})

    model, requests = connect(answer)
    assert model.encode_query(["a"]).shape == (1, 3)
    assert len(requests) == 1 + 4


def test_a_retry_date_is_understood_and_too_long_a_pause_refused() -> None:
    for value in ("Wed, 21 Oct 2065 07:28:00 GMT", "3600"):
        model, _ = connect(lambda *_, value=value: httpx.Response(429, headers={"retry-after": value}))
        with pytest.raises(EndpointError, match="rate limit"):
            model.encode_query(["a"])
    model, _ = connect(lambda *_: httpx.Response(429, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}))
    with pytest.raises(EndpointError, match="rate limit"):
        model.encode_query(["a"])


def hang(_: int, texts: list[str]) -> httpx.Response:
    raise httpx.ReadTimeout("no answer")


def refuse(_: int, texts: list[str]) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (hang, "did not answer in time"),
        (refuse, "cannot be reached"),
        (lambda *_: httpx.Response(401, json={"error": "bad key"}), r"refused the key.*EMBEDLAB_ENDPOINT_API_KEY.*401"),
        (lambda *_: httpx.Response(404), r"'#'.*404"),
        (lambda *_: httpx.Response(302, headers={"location": "http://elsewhere/"}), "302"),
        (lambda *_: httpx.Response(500, text="boom"), r"HTTP 500: boom.*times within"),
        (lambda *_: httpx.Response(200, text="<html>"), "no OpenAI embeddings.*<html>"),
        (lambda *_: httpx.Response(200, json=[1]), "no OpenAI embeddings"),
        (lambda *_: httpx.Response(200, json={"data": [{"index": 0}]}), "no OpenAI embeddings"),
        (lambda *_: httpx.Response(200, json={"data": [{"index": 0, "embedding": "!!"}]}), "no OpenAI embeddings"),
        (lambda *_: httpx.Response(200, json={"data": []}), "0 vectors for 1"),
        (lambda _, texts: good(texts * 2), "2 vectors for 1"),
        (lambda _, texts: good(texts, rows=[[1.0, 2.0]]), "shape"),
        (lambda _, texts: good(texts, rows=[[1.0, 2.0, float("nan")]]), "NaN"),
        (lambda _, texts: good(texts, rows=[[1.0, 2.0, float("inf")]]), "NaN or infinite"),
    ],
)
def test_bad_answers_give_one_clear_message(answer: Answer, message: str) -> None:
    model, _ = connect(answer)
    with pytest.raises(EndpointError, match=message) as caught:
        model.encode_document(["a"])
    assert "http://server/v1/embeddings" in str(caught.value)


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    model, requests = connect(lambda *_: httpx.Response(503), api_key="secret-1")
    assert requests[0].headers["authorization"] == "Bearer secret-1"
    with pytest.raises(EndpointError) as caught:
        model.encode_query(["a"])
    assert "secret" not in str(caught.value) + caplog.text + model.name + model.fingerprint
    monkeypatch.setenv("OPENAI_API_KEY", "secret-2")
    assert connect(lambda _, texts: good(texts))[1][0].headers["authorization"] == "Bearer secret-2"
    monkeypatch.setenv("EMBEDLAB_ENDPOINT_API_KEY", "secret-3")
    assert connect(lambda _, texts: good(texts))[1][0].headers["authorization"] == "Bearer secret-3"


def test_the_fingerprint_tells_models_apart() -> None:
    def at(url: str) -> str:
        transport = httpx.MockTransport(lambda request: good(json.loads(request.content)["input"]))
        return EndpointModel(url, transport=transport).fingerprint

    assert at(URL) == at(URL)
    assert len({at(URL), at("http://server/v1#model-b"), at("http://other/v1#model-a")}) == 3


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://server/v1", {}),
        ("http://#model", {}),
        ("ftp://server/v1#model", {}),
        ("http://user:secret@server/v1#model", {}),
        (URL, {"timeout_s": 0}),
        (URL, {"batch_size": 0}),
        (URL, {"total_timeout_s": -1}),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(url: str, options: dict[str, float]) -> None:
    with pytest.raises(InputError) as caught:
        EndpointModel(url, transport=httpx.MockTransport(refuse), **options)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
