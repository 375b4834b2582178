"""``/v1`` through the openai client itself, over a socket."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from embedlab.models import load_model
from embedlab.models.words import load_tokenizer
from embedlab.serve.app import create_app
from embedlab.serve.settings import Limits, Settings

from .conftest import serving

KEY = "a-key-for-tests-only"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    limits = Limits(batch_texts=50, text_chars=1000, batch_chars=20_000)
    with serving(create_app(Settings(api_key=KEY, limits=limits))) as url:
        yield url


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as it:
        yield it


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model()


TEXTS = ["a small dog", "tax law", "Größe und Maß 🙂", "\n"]


@pytest.mark.parametrize("form", ["float", "base64"])
def test_vectors_are_those_of_the_model(client: openai.OpenAI, model: Any, form: Any) -> None:
    answer = client.embeddings.create(model="default", input=TEXTS, encoding_format=form)
    rows = [row.embedding for row in answer.data]
    if form == "base64":
        rows = [np.frombuffer(base64.b64decode(str(row)), "<f4").tolist() for row in rows]
    np.testing.assert_array_equal(np.asarray(rows, np.float32), model.encode_document(TEXTS))
    assert [row.index for row in answer.data] == [0, 1, 2, 3]
    assert answer.model == "default"
    assert answer.object == "list"


def test_the_client_asks_for_base64_by_itself_and_decodes_it(client: openai.OpenAI, model: Any) -> None:
    answer = client.embeddings.create(model="default", input="a small dog")
    np.testing.assert_array_equal(np.float32(answer.data[0].embedding), model.encode_document(["a small dog"])[0])


def test_fewer_dimensions_are_the_first_ones_at_unit_length(client: openai.OpenAI, model: Any) -> None:
    answer = client.embeddings.create(model="default", input="a small dog", dimensions=16)
    first = model.encode_document(["a small dog"])[0, :16].astype(np.float64)
    np.testing.assert_allclose(answer.data[0].embedding, first / np.sqrt((first**2).sum()), atol=1e-6)


def test_a_text_of_unknown_marks_is_zeros_not_nan(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="default", input="\u200b", dimensions=8, encoding_format="float")
    assert np.isfinite(answer.data[0].embedding).all()


def test_usage_counts_with_the_models_tokenizer(client: openai.OpenAI, model: Any) -> None:
    tokenizer = load_tokenizer(model.tokenizer_json)
    expected = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in TEXTS)
    usage = client.embeddings.create(model="default", input=TEXTS).usage
    assert (usage.prompt_tokens, usage.total_tokens) == (expected, expected)
    assert expected > len(TEXTS)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["default"]
    assert client.models.retrieve("default").owned_by == "embedlab"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"input": [1, 2, 3]}, "input.0"),
    ({"input": [[1, 2], [3]]}, "input.0"),
    ({"input": []}, "input"),
    ({"input": ""}, "input"),
    ({"input": ["a", ""]}, "input.1"),
    ({"input": ["a", None]}, "input.1"),
    ({"input": {"text": "a"}}, "input"),
    ({"input": ["a"] * 51}, "input"),
    ({"input": "a" * 1001}, "input"),
    ({"input": ["a" * 999] * 21}, "input"),
    ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": "a", "dimensions": 100_000}, "dimensions"),
    ({"input": "a", "dimensions": "8"}, "dimensions"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ({"input": "a", "input_type": "passage"}, "input_type"),
    ({}, "input"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=[f"{number}-{field}" for number, (_, field) in enumerate(WRONG)])
def test_what_is_wrong_is_refused_by_name(client: openai.OpenAI, body: dict[str, Any], field: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/embeddings", body={"model": "default", **body}, cast_to=object)
    assert caught.value.param == field
    assert caught.value.type == "invalid_request_error"
    assert field.split(".")[0] in caught.value.message


def test_token_ids_are_refused_in_plain_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="token ids: they mean nothing without the model's tokenizer"):
        client.embeddings.create(model="default", input=[[15339, 1917]])


def test_an_unknown_model_is_not_loaded_from_anywhere(client: openai.OpenAI) -> None:
    for name in ("text-embedding-3-small", "../../etc", "http://127.0.0.1:1/v1#x"):
        with pytest.raises(openai.NotFoundError, match="use one of default"):
            client.embeddings.create(model=name, input="a")


def test_a_wrong_key_is_refused(address: str) -> None:
    stranger = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"", "application/json"),
        (b"{}", "text/plain"),
        (b"\xff", "application/json"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(address: str, content: bytes, kind: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": kind}
    answer = httpx.post(f"{address}/v1/embeddings", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"].keys() == {"message", "type", "field", "param", "code"}
